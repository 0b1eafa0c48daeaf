"""Print the ratios that the benchmarks record: the timings alone mean little on another machine."""


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    if session is None:
        return
    terminalreporter.section("compared in the same run")
    for bench in session.benchmarks:
        for name, value in bench.extra_info.items():
            text = f"{value:,.3g}" if isinstance(value, float) else value
            terminalreporter.write_line(f"{bench.name}: {name.replace('_', ' ')} {text}")
