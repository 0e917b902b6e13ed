//! Numbers of verification guards: from 1, in the order first handed out, through reopenings too. The log numbers its
//! own from 1 at each opening, so a number of the script names an opening and the log's guard in it.

/// A guard that no log hands out.
const NOBODYS: u64 = u64::MAX;

/// All guards of a script.
#[derive(Default)]
pub struct Guards {
    opening: u64,
    /// Opening and the log's guard; the place in the list is the number less one.
    known: Vec<(u64, u64)>,
}

impl Guards {
    /// A log was opened: guards of the one before are nobody's.
    pub fn forget_open_ones(&mut self) {
        self.opening += 1;
    }

    /// The script's number of the log's guard.
    pub fn number(&mut self, guard: u64) -> usize {
        let wanted = (self.opening, guard);
        let at = self.known.iter().position(|known| *known == wanted).unwrap_or_else(|| {
            self.known.push(wanted);
            self.known.len() - 1
        });
        at + 1
    }

    /// The open log's guard of a number; one that fits nothing for unknown numbers and those of earlier openings.
    pub fn guard(&self, number: i64) -> u64 {
        let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        match at.and_then(|at| self.known.get(at)) {
            Some((opening, guard)) if *opening == self.opening => *guard,
            _ => NOBODYS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_through_openings() {
        let mut guards = Guards::default();
        assert_eq!((guards.number(1), guards.number(2), guards.number(1)), (1, 2, 1));
        guards.forget_open_ones();
        assert_eq!(guards.guard(1), NOBODYS);
        assert_eq!(guards.number(1), 3);
        assert_eq!((guards.guard(3), guards.guard(0), guards.guard(-1)), (1, NOBODYS, NOBODYS));
    }
}
