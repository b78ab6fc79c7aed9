"""What is in deploy/: read by the programs it is for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from tests.conftest import Database
from tests.waiting import until
from tests.webserver import PATIENCE, ROOT, TOKEN, Server, serving

DEPLOY = ROOT / "deploy"
RULES = (DEPLOY / "prometheus" / "rules.yml").read_text()
ALERTS = re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE)


def program(name: str) -> str:
    """The path of a program, or the test is skipped, saying what to install."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        package = {"promtool": "prometheus", "systemd-analyze": "systemd"}.get(
            name, name
        )
        pytest.skip(f"{name} is not here: apt-get install {package}")
    return found


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


# --- alerts ---------------------------------------------------------------------------------


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    run(program("promtool"), "test", "rules", str(DEPLOY / "prometheus" / "tests.yml"))


def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    for file in ("prometheus.yml", "rules.yml"):
        text = (DEPLOY / "prometheus" / file).read_text()
        (tmp_path / file).write_text(text.replace("/etc/prometheus", str(tmp_path)))
    (tmp_path / "terrain.token").write_text("a token")
    run(program("promtool"), "check", "config", str(tmp_path / "prometheus.yml"))


def test_each_alert_is_tried_both_ways_and_explained() -> None:
    tests = (DEPLOY / "prometheus" / "tests.yml").read_text()
    explained = (ROOT / "docs" / "alerts.md").read_text()
    tried = re.findall(r"^  - name: (\w+) (fires|is silent)$", tests, re.MULTILINE)
    assert set(tried) == {
        (name, way) for name in ALERTS for way in ("fires", "is silent")
    }
    assert re.findall(r"^### (\w+)$", explained, re.MULTILINE) == ALERTS
    assert re.findall(r"runbook: docs/alerts\.md#(\w+)", RULES) == [
        name.lower() for name in ALERTS
    ]


# --- services -------------------------------------------------------------------------------


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    units = []
    for unit in (DEPLOY / "systemd").iterdir():
        here = unit.read_text().replace("/srv/terrain/.venv/bin", "/bin")
        here = re.sub(
            "^ExecStart=/bin/(gunicorn|python)", "ExecStart=/bin/sh", here, flags=re.M
        )
        (tmp_path / unit.name).write_text(here)
        units.append(str(tmp_path / unit.name))
    run(program("systemd-analyze"), "verify", "--man=no", *units)


def test_the_commands_of_the_units_are_there() -> None:
    from django.core.management import get_commands

    for unit in (DEPLOY / "systemd").glob("*.service"):
        for command in re.findall(r"manage\.py (\w+)", unit.read_text()):
            assert command in get_commands(), unit.name


@pytest.fixture
def nginx(tmp_path: Path) -> Path:
    """The example with a certificate of the test's own, as the only site."""
    run(
        *(program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes"),
        *("-subj", "/CN=shop.example.com", "-days", "1"),
        *("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")),
    )
    site = (DEPLOY / "nginx" / "terrain.conf").read_text()
    site = site.replace(
        "/etc/ssl/certs/ssl-cert-snakeoil.pem", f"{tmp_path}/certificate"
    )
    site = site.replace("/etc/ssl/private/ssl-cert-snakeoil.key", f"{tmp_path}/key")
    site = re.sub(r"listen (\[::\]:)?(80|443)", rf"listen unix:{tmp_path}/\g<2>", site)
    # The same socket twice, where there were two families of addresses.
    site = re.sub(
        r"^( *listen unix:[^\n]*\n) *listen unix:[^\n]*\n", r"\1", site, flags=re.M
    )
    (tmp_path / "site.conf").write_text(site)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}include {tmp_path}/site.conf;\n}}\n"
    )
    return tmp_path / "nginx.conf"


def test_nginx_takes_the_site(nginx: Path) -> None:
    run(program("nginx"), "-t", "-c", str(nginx))


# --- the dashboard --------------------------------------------------------------------------

#: What has nothing to show at a healthy shop.
EMPTY_WHEN_WELL = {
    "terrain_source_up",
    "terrain_orders_without_amount",
    "terrain_payments_without_amount",
}


def queries() -> list[tuple[str, str]]:
    """(title of the panel, PromQL) of the whole dashboard, for all instances."""
    dashboard = json.loads((DEPLOY / "grafana" / "terrain.json").read_text())
    return [
        (panel["title"], target["expr"].replace("$instance", ".*"))
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]


class Prometheus:
    """A real one, which scrapes the application each second and evaluates the rules."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **query: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, expression: str) -> list[Any]:
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def is_ready(self) -> bool:
        try:
            return len(self.value("count_over_time(terrain_database_up[5m]) >= 3")) == 1
        except OSError:
            return False


@pytest.fixture
def prometheus(stocked: Server, tmp_path: Path) -> Iterator[Prometheus]:
    binary, port = program("prometheus"), _free_port()
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s, scrape_timeout: 1s}\n"
        f"rule_files: [{DEPLOY / 'prometheus' / 'rules.yml'}]\n"
        "scrape_configs:\n"
        "  - job_name: terrain\n"
        f"    authorization: {{credentials: {TOKEN}}}\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{stocked.port}']}}]\n"
    )
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        made = Prometheus(port)
        until(
            made.is_ready,
            f"Prometheus has scraped; see {tmp_path}/prometheus.log",
            seconds=PATIENCE,
        )
        yield made
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


@pytest.fixture
def stocked(migrated: Database, tmp_path: Path) -> Iterator[Server]:
    """The application at a shop with something of everything that is measured."""
    call_command("copy_models_to_assets", verbosity=0)
    call_command("verify_migration", verbosity=0)
    for change in ("user_tables SET table_config = '[]'", "orders SET pricing = '{}'"):
        table = change.split()[0]
        migrated.old().execute(
            f"UPDATE {change} WHERE id = (SELECT id FROM {table} ORDER BY id LIMIT 1)"
        )
    with serving(
        migrated, tmp_path / "log", BACKUP_DIR=str(_backup(tmp_path))
    ) as server:
        yield server


def _backup(folder: Path) -> Path:
    from django.conf import settings

    kept, settings.BACKUP_DIR = settings.BACKUP_DIR, folder / "backups"
    try:
        call_command("backup_database", verbosity=0)
    finally:
        settings.BACKUP_DIR = kept
    return folder / "backups"


def test_every_query_of_the_dashboard_has_an_answer(prometheus: Prometheus) -> None:
    """At a real Prometheus, from what the real application says."""
    until(
        lambda: prometheus.value("instance:terrain_asset_uses:rate1h"),
        "the rules have been evaluated",
        seconds=PATIENCE,
    )
    empty = {
        (title, query) for title, query in queries() if not prometheus.value(query)
    }
    assert {query for _, query in empty if not _is_empty_when_well(query)} == set()


def _is_empty_when_well(query: str) -> bool:
    return any(query.startswith(name) for name in EMPTY_WHEN_WELL)


def test_the_rules_evaluate_and_nothing_is_alarming_that_is_well(
    prometheus: Prometheus,
) -> None:
    until(
        lambda: all(
            rule["health"] == "ok"
            for group in prometheus.ask("rules")["groups"]
            for rule in group["rules"]
        ),
        "every rule has been evaluated",
        seconds=PATIENCE,
    )
    firing = {
        alert["labels"]["alertname"]
        for alert in prometheus.ask("alerts")["alerts"]
        if alert["state"] == "firing"
    }
    assert firing <= {"TerrainVerificationFailed"} and "TerrainDown" not in firing


def test_every_metric_is_on_the_dashboard_or_in_an_alert(
    prometheus: Prometheus,
) -> None:
    """Nothing is measured that nobody looks at."""
    looked_at = " ".join(query for _, query in queries()) + RULES
    names = {
        name
        for name in prometheus.ask("label/__name__/values")
        if name.startswith("terrain_")
    }
    unseen = {name for name in names if name not in looked_at}
    assert unseen == {
        "terrain_move_step_state",
        "terrain_move_step_seconds",
        "terrain_move_step_finished_timestamp_seconds",
        "terrain_move_step_batch_rows",
        "terrain_source_age_seconds",
    }
