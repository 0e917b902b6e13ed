"""Shortest scripts that still differ: used by differential.py --minimise.

Operations are taken away in halves, quarters and so on down to single ones, then settings, as long as the same kind of
difference stays. All scripts are worked on at once, and a round asks about all that can be left out next, so that Kafka
is started once a round and not once a question.
"""


def minimise(runner, cases):
    """The shortest (script, finding) for each (script, finding), in order."""
    results = [None] * len(cases)
    running = {}
    for i, (script, finding) in enumerate(cases):
        search = shorter(script, finding)
        running[i] = (search, next(search))
    while running:
        questions = [script for _, asked in running.values() for script in asked]
        answers = iter(runner.check(questions))
        for i, (search, asked) in list(running.items()):
            try:
                running[i] = (search, search.send([next(answers) for _ in asked]))
            except StopIteration as done:
                results[i] = done.value
                del running[i]
    return results


def shorter(script, finding):
    """Yields lists of scripts to try, is sent their findings, returns the shortest (script, finding)."""
    script = script[:finding.line]
    size = max(1, len(script) // 2)
    while True:
        script, finding, cut = yield from without_lines(script, finding, size)
        if size == 1 and not cut:
            break
        size = max(1, size // 2)
    return (yield from without_settings(script, finding))


def without_lines(script, finding, size):
    """Leaves out what it can of the pieces of this size."""
    last = len(script) - 1
    pieces = [range(at, min(at + size, last)) for at in range(0, last, size)]
    findings = yield [leave_out(script, [piece]) for piece in pieces]
    loose = [piece for piece, found in zip(pieces, findings) if same(found, finding)]
    if not loose:
        return script, finding, False
    # Each can go alone. Together? All, then halves from either end, then one.
    groups = [loose]
    while len(groups[-1]) > 1:
        groups.append(loose[:(len(groups[-1]) + 1) // 2])
    groups[1:1] = [loose[len(group):] for group in groups[1:] if len(group) < len(loose)]
    tried = [leave_out(script, group) for group in groups]
    findings = yield tried
    best = min((len(t), i) for i, t in enumerate(tried) if same(findings[i], finding))[1]
    return cut(tried[best], findings[best]), findings[best], True


def without_settings(script, finding):
    names = sorted({name for op in script for name in op.get("config", {})})
    for name in names:
        tried = [{**op, "config": {k: v for k, v in op["config"].items() if k != name}} if "config" in op else op for op in script]
        [found] = yield [tried]
        if same(found, finding):
            script, finding = cut(tried, found), found
    return script, finding


def leave_out(script, pieces):
    gone = {i for piece in pieces for i in piece}
    return [op for i, op in enumerate(script) if i not in gone]


def cut(script, finding):
    return script[:finding.line]


def same(found, finding):
    return found is not None and found.kind == finding.kind
