"""The pages of who runs the installation: dashboard, models, trainings and jobs, as a browser gets them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jobs_rig import start, taken, upload
from service_rig import browser, service_behind

from shelver.catalog.store import Catalog
from shelver.evaluate import evaluate
from shelver.registry import read_manifest
from shelver.report import publish
from shelver.service.jobs.leases import finish, refuse, tell
from shelver.service.jobs.waiting import PATIENCE, nobody_works
from shelver.service.models.changes import difference
from shelver.service.models.facts import Curve, facts_of
from shelver.service.pages import charts
from shelver.service.pages.dashboard import range_asked
from shelver.service.pages.locales import words_in
from shelver.service.pages.models import curve_charts
from shelver.service.records.entries import Entry, insert_entries
from shelver.service.records.payloads import Figure
from shelver.service.state import Service
from shelver.service.tables.declarative import new_id, now
from shelver.service.tables.work import JobRow

EVIL = "<script>alert('x')</script>"


class Seen(HTMLParser):
    """Tags and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))


def got(client: TestClient, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return answer.text


@pytest.fixture(scope="session")
def reported(text_model: Path, tiny_catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text model with its reports beside it, as a training leaves it."""
    folder = Path(shutil.copytree(text_model, tmp_path_factory.mktemp("reported") / "text"))
    report = evaluate(folder, tiny_catalog, say=lambda _: None)
    publish(report, model=folder, catalog=tiny_catalog, out=folder / "report", say=lambda _: None)
    return folder


@pytest.fixture(scope="session")
def challenging(image_model: Path, tiny_catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of the picture model."""
    folder = Path(shutil.copytree(image_model, tmp_path_factory.mktemp("challenging") / "pictures"))
    report = evaluate(folder, tiny_catalog, say=lambda _: None)
    publish(report, model=folder, catalog=tiny_catalog, out=folder / "report", say=lambda _: None)
    return folder


@pytest.fixture
def running(make_app: Callable[..., TestClient], reported: Path) -> TestClient:
    """A service that started with the model that has reports."""
    return make_app(model=reported)


def predicted(service: Service, **changes: Any) -> Entry:
    said: dict[str, Any] = {
        "id": new_id(),
        "at": datetime.now(UTC) - timedelta(hours=1),
        "user_id": None,
        "input_hash": "00" * 32,
        "product_id": None,
        "answer": "{}",
        "node_id": service.models.current().taxonomy.ids[-1],
        "confidence": 0.8,
        "outcome": "decided",
        "policy": "default",
        "model_version": "m1",
        "taxonomy_version": "t1",
        "modality": "text",
        "latency_ms": 12.0,
    }
    one = Entry(**{**said, **changes})
    insert_entries(service.database, [one])
    return one


def test_the_dashboard_shows_figures_charts_and_what_was_judged(running: TestClient) -> None:
    service, admin = service_behind(running), browser(running, "admin", name=EVIL)
    tree = service.models.current().taxonomy
    made = [predicted(service, latency_ms=10.0 * (i + 1), product_id=EVIL) for i in range(4)]
    predicted(service, outcome="review", node_id=None, confidence=None)
    for one in made:
        said = {"action": "accept"} if one is not made[0] else {"action": "correct", "node_id": tree.ids[0]}
        assert admin.post(f"/v1/predictions/{one.id}/feedback", json=said).status_code == 201
    text = got(admin, "/dashboard")
    seen = Seen(text)
    assert EVIL not in text
    assert EVIL in seen.texts
    figures = dict(reversed([*zip(seen.texts, seen.texts[1:], strict=False)]))  # the first of each counts
    assert figures["Coverage"] == "80%"
    assert figures["Accuracy"] == "75%"
    assert figures["Predictions"] == "5"
    drawings = [attributes for tag, attributes in seen.tags if attributes.get("class") == "drawing"]
    assert len(drawings) == 3
    assert all(one["role"] == "img" and one["aria-labelledby"] for one in drawings)
    assert sum(tag == "rect" and str(a.get("class", "")).startswith("series") for tag, a in seen.tags) >= 2
    assert not [tag for tag, attributes in seen.tags if "style" in attributes or tag == "style"]
    assert "no longer in the tree" not in text
    assert text.count('class="badge bad">wrong') == 1
    assert f'href="/log/{made[3].id}"' in text
    wrong = got(admin, "/dashboard/labelled?only=wrong")
    assert f"/log/{made[0].id}" in wrong
    assert f"/log/{made[1].id}" not in wrong


def test_the_dashboard_has_a_time_range_and_says_what_is_wrong_with_one(running: TestClient) -> None:
    service, reviewer = service_behind(running), browser(running, "reviewer")
    predicted(service, at=datetime(2026, 5, 4, 23, 30, tzinfo=UTC))
    assert "Nothing was asked in this time" in got(reviewer, "/dashboard?days=7")
    text = got(reviewer, "/dashboard?from=2026-05-04&to=2026-05-04")
    assert re.search(r"<dt>Predictions</dt><dd><span class=\"value\">1</span>", text)
    assert 'value="2026-05-04"' in text
    for query in ("from=2026-05-04&to=2026-05-01", "from=2024-01-01&to=2026-05-01", "from=soon", "to=9999-12-31"):
        text = got(reviewer, f"/dashboard?{query}", 422)
        assert 'class="error"' in text
    assert 'aria-current="page">30 days' in got(reviewer, "/dashboard?days=31")


def test_weeks_in_which_nothing_was_judged_leave_a_gap_in_the_quality(running: TestClient) -> None:
    service, admin = service_behind(running), browser(running, "admin")
    for day in (2, 4, 18, 31):
        one = predicted(service, at=datetime(2026, 5, day, 12, tzinfo=UTC))
        assert admin.post(f"/v1/predictions/{one.id}/feedback", json={"action": "accept"}).status_code == 201
    text = got(admin, "/dashboard?from=2026-05-01&to=2026-05-31")
    table = text[text.index("Quality over time") :]
    rows = re.findall(r'<th scope="row">([^<]*)</th><td class="number">([^<]*)', table)[:5]
    assert [name for name, _ in rows] == ["27 Apr", "4 May", "11 May", "18 May", "25 May"]
    assert [value == "–" for _, value in rows] == [False, False, True, False, False]


def test_a_number_of_days_is_of_whole_days() -> None:
    asked = range_asked(words_in("en"), "7", "", "")
    assert (asked.start.hour, asked.start.minute) == (0, 0)
    assert asked.last - asked.first == timedelta(days=6)
    assert asked.start.date() == asked.first


def test_without_a_model_the_dashboard_says_what_to_do(make_app: Callable[..., TestClient]) -> None:
    admin = browser(make_app(model=None), "admin")
    assert "No model answers yet" in got(admin, "/dashboard")
    assert "No model yet" in got(admin, "/models")


def test_a_model_shows_how_good_it_is_how_it_learned_and_its_report(running: TestClient, reported: Path) -> None:
    admin = browser(running, "admin")
    version = read_manifest(reported).model_version
    facts = admin.get(f"/v1/models/{version}/facts").json()
    report = json.loads((reported / "report" / "report.json").read_text())
    assert facts["scores"][0]["figures"]["weighted_f1"] == report["weighted_f1"]
    assert facts["scores"][0]["accuracy"]["low"] < report["accuracy"] <= facts["scores"][0]["accuracy"]["high"]
    assert facts["data"]["n_nodes"] == service_behind(running).models.current().taxonomy.n_nodes
    assert {curve["quantity"] for curve in facts["curves"]} >= {"loss", "accuracy"}
    text = got(admin, f"/models/{version}")
    assert text.count('class="drawing"') >= 2
    assert f"/v1/models/{version}/report.html" in text
    page = admin.get(f"/v1/models/{version}/report.html")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "default-src 'none'" in policy
    assert version in got(admin, "/models")


def test_what_a_model_folder_says_of_itself_cannot_break_or_enter_a_page(
    running: TestClient, image_model: Path, tmp_path: Path
) -> None:
    service, admin = service_behind(running), browser(running, "admin")
    folder = Path(shutil.copytree(image_model, tmp_path / "evil"))
    version = read_manifest(folder).model_version
    (folder / "report").mkdir(exist_ok=True)
    row = {"n": 10, "accuracy": 0.5, "weighted_f1": 0.5}
    evaluations: dict[str, Any] = {
        "a": {"catalog": EVIL, "catalog_version": "1", "split": EVIL, "rows": {"all": row}},
        "b": {"catalog": "c", "catalog_version": "2", "split": "test", "rows": {"all": row | {"accuracy": 7}}},
        "c": {"catalog": "c", "rows": {"all": row}},
        "d": [],
    }
    said = {"model_version": version, "evaluations": evaluations}
    (folder / "report" / "figures.json").write_text(json.dumps(said))
    (folder / "report" / "report.json").write_text('{"n": ' + "[" * 100_000)
    (folder / "report" / "learning.jsonl").write_text(
        '{"epoch": 1, "phase": "'
        + EVIL
        + '", "train_loss": 1e999, "a_loss": NaN, "b_loss": 2}\n[[[\n{"epoch": true}\n'
        '{"epoch": 2, "phase": "x", "b_loss": 1, "c_accuracy": 5e300}\n'
    )
    (folder / "report" / "report.html").write_text(EVIL)
    service.models.store.register(folder, by="a test", trial=False)
    for path in ("/models", f"/models/{version}", f"/models/compare?version={version}"):
        assert EVIL not in got(admin, path)
    assert [one["catalog"] for one in admin.get(f"/v1/models/{version}/facts").json()["scores"]] == [EVIL]
    assert "sandbox" in admin.get(f"/v1/models/{version}/report.html").headers["content-security-policy"]


def test_what_changed_between_two_models_is_told_with_the_interval_of_the_difference(
    running: TestClient, challenging: Path, reported: Path
) -> None:
    service, admin = service_behind(running), browser(running, "admin")
    base = read_manifest(reported).model_version
    other = service.models.store.register(challenging, by="a test", trial=False).model_version
    changes = admin.get(f"/v1/models/{other}/changes").json()
    assert changes["base"] == base
    assert {"name": "text_encoder", "before": "ngram", "after": "none"} in changes["settings"]
    assert {"name": "texts", "before": "ngram", "after": None} in changes["parts"]
    assert changes["tree"] is None
    gap = next(one for one in changes["compared"]["figures"] if one["name"] == "accuracy")
    assert gap["low"] < gap["difference"] < gap["high"]
    assert gap["difference"] == pytest.approx(gap["after"] - gap["before"])
    text = got(admin, f"/models/compare?base={base}&version={other}")
    assert "Reads texts with" in text
    assert text.count('class="drawing"') >= 1
    assert got(admin, "/models/compare?version=0123456789ab", 404)
    assert admin.get("/models/compare").headers["location"] == "/models"


def test_figures_and_curves_of_models_do_not_mislead(running: TestClient, reported: Path) -> None:
    service, admin = service_behind(running), browser(running, "admin")
    answers = read_manifest(reported).model_version
    shown = service.models.store.folder_of(answers) / "report" / "report.json"
    report = json.loads(shown.read_text())
    calm = facts_of(service.models.store, answers).model_copy(
        update={
            "curves": [
                Curve(quantity="loss", name=name, time="epoch", x=[1.0, 2.0], y=[y, y / 2])
                for name, y in (("train, choose", 32.0), ("validation, choose", 0.6))
            ]
        }
    )
    losses = curve_charts(words_in("en"), [calm])
    assert [one.title for one in losses] == ["Loss, training products", "Loss, held-out products"]
    assert {one.names for one in losses} == {
        ("training products, while it chose its settings",),
        ("held-out products, while it chose its settings",),
    }
    for ece, said in ((0.0, "≈ 0</span>"), (0.0004, "0.0004")):
        shown.unlink()  # a file of its own, whatever the store shares
        shown.write_text(json.dumps({**report, "ece": ece}))
        assert said in got(admin, f"/models/{answers}")
    assert f"/models/{answers}/promote" not in got(admin, f"/models/compare?base={answers}&version={answers}")


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # His example: 56 of 70 against 48 of 80, with the Wilson intervals of each.
    before = Figure(value=48 / 80, low=0.4904, high=0.7003, n=80)
    after = Figure(value=56 / 70, low=0.6918, high=0.8768, n=70)
    found = difference(before, after)
    assert found is not None
    assert found == pytest.approx((0.0524, 0.3339), abs=0.001)
    assert difference(Figure(value=0.5, low=None, high=None, n=3), after) is None


def test_a_model_is_registered_promoted_and_rolled_back_with_forms_that_say_what_changes(
    running: TestClient, challenging: Path, reported: Path
) -> None:
    service, admin = service_behind(running), browser(running, "admin")
    before = read_manifest(reported).model_version
    version = read_manifest(challenging).model_version
    shutil.copytree(challenging, service.models.imports / "pictures")
    assert '<option value="pictures">' in got(admin, "/models")
    answer = admin.post("/models/register", data={"folder": "pictures", "challenger": "yes"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/models/{version}?done=model-registered")
    assert service.models.store.aliases().challenger == version
    refused = admin.post("/models/register", data={"folder": "../nowhere"})
    assert refused.status_code == 422
    assert "no folder in the import folder" in refused.text
    assert "nothing to roll back to" in got(admin, admin.get("/models/rollback").headers["location"])
    asked = got(admin, f"/models/{version}/promote")
    assert f"From now on {version} answers everybody" in asked
    assert f"{before} becomes the previous model" in asked
    assert service.models.current().model_version == before, "to look changes nothing"
    done = admin.post(f"/models/{version}/promote")
    assert (done.status_code, done.headers["location"]) == (303, f"/models/{version}?done=model-promoted")
    assert service.models.current().model_version == version
    assert "This model answers now." in got(admin, done.headers["location"])
    assert f"Roll back to {before}?" in got(admin, "/models/rollback")
    assert f'name="version" value="{before}"' in got(admin, "/models/rollback")
    for _ in range(2):  # pressed twice, or by two people in the same emergency
        answer = admin.post("/models/rollback", data={"version": before})
        assert answer.headers["location"] == "/models?done=model-rolled-back"
        assert service.models.current().model_version == before, "the bad model does not come back"
    for stale in ("", "0" * 16):
        assert admin.post("/models/rollback", data={"version": stale}).status_code == 409
    assert service.models.current().model_version == before
    assert "answers already" in got(admin, f"/models/{before}/promote")


def test_only_administrators_change_models_and_only_from_our_own_pages(
    running: TestClient, reported: Path
) -> None:
    version = read_manifest(reported).model_version
    reviewer, admin = browser(running, "reviewer"), browser(running, "admin")
    assert "/models/train" not in got(reviewer, "/models")
    for path in (f"/models/{version}/promote", "/models/rollback", "/models/register", "/models/train"):
        assert reviewer.post(path).status_code == 403, path
        assert admin.post(path, headers={"Origin": "http://evil.example"}).status_code == 403, path
    seller = browser(running, "seller")
    for path in ("/models", "/dashboard", f"/models/{version}"):
        assert seller.get(path).status_code == 403


def test_a_training_is_started_with_a_form_and_what_is_wrong_stands_beside_its_field(running: TestClient) -> None:
    service, admin = service_behind(running), browser(running, "admin")
    wrong = admin.post("/models/train", data={"epochs": "many", "minutes": "0", "attributes": EVIL})
    assert wrong.status_code == 422
    assert wrong.text.count('class="error"') == 2
    assert EVIL not in wrong.text
    unknown = admin.post("/models/train", data={"catalog": "nowhere"})
    assert unknown.status_code == 404
    assert "catalog nowhere" in unknown.text
    typed = {
        "text_encoder": "ngram",
        "image_encoder": "none",
        "epochs": "3",
        "minutes": "1,5",
        "attributes": "colour, ",
    }
    made = admin.post("/models/train", data=typed)
    assert made.status_code == 303, made.text
    path = made.headers["location"].split("?")[0]
    params = admin.get(f"/v1{path}").json()["params"]
    assert params["text_encoder"] == "ngram"
    assert (params["epochs"], params["time_limit_s"], params["attributes"]) == (3, 90.0, ["colour"])
    text = got(admin, made.headers["location"])
    seen = Seen(text)
    job = next(attributes for tag, attributes in seen.tags if "data-job" in attributes)
    assert job["data-job"] == path.rsplit("/", 1)[1]
    assert "data-over" not in job
    assert ("meta", {"http-equiv": "refresh", "content": "10"}) in seen.tags
    assert "No worker seems to run" not in text, "it has waited for a moment only"
    with service.database.writing() as session:
        session.get_one(JobRow, job["data-job"]).not_before = now() - 2 * PATIENCE
    for where in (path, "/jobs", "/models"):
        assert "No worker seems to run" in got(admin, where)
    taken(service)
    with service.database.reading() as session:
        assert not nobody_works(session)
    assert "No worker seems to run" not in got(admin, path)


def test_a_job_shows_how_far_it_came_its_result_its_files_and_what_to_do_when_it_failed(
    client: TestClient, service: Service, as_role: Callable[..., TestClient]
) -> None:
    seller = as_role("seller", "Ann")
    first = start(seller, kind="import_products", upload_id=upload(seller))
    admin = browser(client, "admin")
    lease = taken(service)
    tell(service.database, lease, fraction=0.25, phase="importing", words=f"1 row {EVIL}")
    text = got(admin, f"/jobs/{first['id']}")
    seen = Seen(text)
    assert EVIL not in text
    assert f"1 row {EVIL}" in seen.texts
    bar = next(attributes for tag, attributes in seen.tags if tag == "progress")
    assert bar["value"] == "0.25"
    assert "Ann" in seen.texts
    finish(
        service.database,
        lease,
        {"n_rows": 3, "n_added": 2, "test": {"accuracy": 0.5}, "files": ["rejected.jsonl"]},
    )
    text = got(admin, f"/jobs/{first['id']}")
    for said in (
        "Rows read",
        "Products added",
        "50%",
        f"/v1/jobs/{first['id']}/files/rejected.jsonl",
        "data-over",
    ):
        assert said in text, said
    second = start(seller, kind="import_products", upload_id=upload(seller))
    refuse(service.database, taken(service), code="invalid_input", detail="feed.csv is empty. Check the feed.")
    text = got(admin, f"/jobs/{second['id']}")
    assert "Check the feed." in text
    assert "invalid_input" in text
    listed = got(admin, "/jobs?state=failed")
    assert second["id"] in listed
    assert first["id"] not in listed
    assert "No jobs here" in got(admin, "/jobs?kind=evaluate")


def test_a_job_is_cancelled_by_its_owner_or_an_administrator_and_hidden_from_others(
    client: TestClient, service: Service
) -> None:
    seller, other, admin = (browser(client, role) for role in ("seller", "seller", "admin"))
    job = start(seller, kind="predict")["id"]
    assert other.get(f"/jobs/{job}").status_code == 404
    assert other.post(f"/jobs/{job}/cancel").status_code == 404
    assert job not in got(other, "/jobs")
    done = seller.post(f"/jobs/{job}/cancel")
    assert done.headers["location"] == f"/jobs/{job}?done=job-cancelled"
    assert "data-job-state" in got(admin, f"/jobs/{job}")
    assert "Cancelled" in Seen(got(seller, done.headers["location"])).texts


def test_charts_stand_within_their_frame_and_carry_their_numbers() -> None:
    def say(value: float) -> str:
        return f"{value:g}"

    two = [charts.Series("a", [1, 0, 5]), charts.Series("b", [2, 0, 3])]
    bars = charts.stacked("t", "d", "day", ["x", "y", "z"], two, say)
    assert len(bars.bars) == 4
    assert all(bar.y >= 0 and bar.y + bar.height <= charts.HEIGHT - charts.BOTTOM + 0.2 for bar in bars.bars)
    assert bars.rows == (("x", ("1", "2")), ("y", ("0", "0")), ("z", ("5", "3")))
    tall = [bar for bar in bars.bars if bar.x > 250]
    assert sum(bar.height for bar in tall) == pytest.approx(charts.HEIGHT - charts.TOP - charts.BOTTOM, abs=0.5)
    gap = charts.Series("a", [0.5, None, 0.9, 1.0], [0.4, None, 0.8, 0.9], [0.6, None, 0.95, 1.0])
    line = charts.lines("t", "d", "day", list("wxyz"), [gap], say, share=True)
    assert len(line.lines[0].pieces) == 1
    assert len(line.lines[0].dots) == 3
    assert line.rows[1] == ("x", ("–",))
    assert line.rows[0] == ("w", ("0.5 (0.4 – 0.6)",))
    assert line.y_ticks[0].text == "1"
    for nothing in ([], [charts.Series("a", [])]):
        assert charts.lines("t", "d", "day", [], nothing, say).rows == ()
        assert charts.stacked("t", "d", "day", [], nothing, say).bars == ()
    flat = charts.lines("t", "d", "step", ["1"], [charts.Series("a", [0.0])], say, xs=[7.0])
    assert flat.lines[0].dots
