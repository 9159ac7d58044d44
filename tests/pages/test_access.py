"""Who may do what: the lists, the mistakes, and that the server refuses what a page has disabled."""

import json
import re
import tomllib

import pytest

from cifar_core.settings.search_config import SearchConfig
from pages.shared import access, navigation, resources, tasks
from pages.shared.access import Role
from tests.pages import live_runs

TEACHER, PUPIL = "teacher@school.org", "pupil@school.org"
AUTH = {
    "redirect_uri": "https://lab.school.org/oauth2callback",
    "cookie_secret": "0123456789abcdef" * 4,
    "client_id": "lab",
    "client_secret": "hush",
    "server_metadata_url": "https://id.school.org/.well-known/openid-configuration",
}
SHARED = {"auth": AUTH, "sharing": {"may_launch": [TEACHER], "may_look": ["@school.org"]}}
MAY = [
    (Role.OWNER, True, True, True),
    (Role.LAUNCH, True, True, False),
    (Role.LOOK, True, False, False),
    (Role.STRANGER, False, False, False),
]


def user(email=PUPIL, **claims):
    return {"is_logged_in": True, "email": email, **claims}


def sharing(**lists):
    return {"auth": AUTH, "sharing": {"may_launch": [TEACHER], **lists}}


def auth(**changes):
    return {**SHARED, "auth": {**AUTH, **changes}}


def without(key):
    return {**SHARED, "auth": {name: value for name, value in AUTH.items() if name != key}}


# --- Roles ---------------------------------------------------------------------------------------


def test_what_each_role_may_do():
    assert [(role, role.may_look, role.may_launch, role.may_name_paths) for role in Role] == MAY


@pytest.mark.parametrize("secrets", [{}, {"something": {"of": "others"}}])
def test_without_our_sections_whoever_comes_is_the_owner(secrets):
    assert access.policy_of(secrets).role({}) is Role.OWNER


@pytest.mark.parametrize(
    ("visitor", "role"),
    [
        (user(TEACHER), Role.LAUNCH),
        (user(f" {TEACHER.upper()}\n"), Role.LAUNCH),
        (user(TEACHER, email_verified=True), Role.LAUNCH),
        (user(PUPIL), Role.LOOK),
        (user("Pupil@SCHOOL.org"), Role.LOOK),
        (user("somebody@elsewhere.org"), Role.STRANGER),
        (user("teacher@school.org.evil.com"), Role.STRANGER),
        (user("teacher@school.org@evil.com"), Role.STRANGER),
        (user("pupil@sub.school.org"), Role.STRANGER),
        (user("school.org"), Role.STRANGER),
        (user(TEACHER, email_verified=False), Role.STRANGER),
        (user(TEACHER, email_verified="false"), Role.STRANGER),
        (user(TEACHER, email_verified=None), Role.STRANGER),
        (user(""), Role.STRANGER),
        (user(None), Role.STRANGER),
        (user([TEACHER]), Role.STRANGER),
        ({"is_logged_in": True}, Role.STRANGER),
        ({"email": TEACHER}, Role.STRANGER),
        ({"is_logged_in": "true", "email": TEACHER}, Role.STRANGER),
        ({"is_logged_in": False, "email": TEACHER}, Role.STRANGER),
        ({}, Role.STRANGER),
    ],
)
def test_the_role_of_a_visitor(visitor, role):
    assert access.policy_of(SHARED).role(visitor) is role


def test_a_star_lets_whoever_signs_in_with_a_verified_address_look():
    policy = access.policy_of(sharing(may_look=["*"]))
    assert policy.role(user("somebody@elsewhere.org")) is Role.LOOK
    assert policy.role(user("somebody@elsewhere.org", email_verified=False)) is Role.STRANGER


def test_without_may_look_only_launchers_come_in():
    policy = access.policy_of(sharing())
    assert policy.role(user(TEACHER)) is Role.LAUNCH
    assert policy.role(user(PUPIL)) is Role.STRANGER


# --- Mistakes ------------------------------------------------------------------------------------

MISTAKES = [
    ({"auth": AUTH}, r"no section \[sharing\]"),
    ({"sharing": SHARED["sharing"]}, r"no section \[auth\]"),
    ({"auth": AUTH, "sharing": "all"}, r"no section \[sharing\]"),
    ({"auth": "yes", "sharing": SHARED["sharing"]}, r"no section \[auth\]"),
    ({"auth": AUTH, "sharing": {}}, "no may_launch"),
    ({"auth": AUTH, "sharing": {"may_look": ["*"]}}, "no may_launch"),
    (sharing(may_lanch=[TEACHER]), "unknown key 'may_lanch'; known are may_launch and may_look"),
    (sharing(may_launch=[]), "may_launch is an empty list"),
    (sharing(may_look=[]), "may_look is an empty list"),
    (sharing(may_launch=TEACHER), "may_launch must be a list"),
    (sharing(may_look="*"), "may_look must be a list"),
    (sharing(may_launch=["*"]), r"may_launch can't hold \"\*\""),
    (sharing(may_launch=[TEACHER, "teacher"]), "may_launch: entry 2 is no e-mail address"),
    (sharing(may_look=["school.org"]), "may_look: entry 1 is no e-mail address"),
    (sharing(may_look=["@"]), "may_look: entry 1 is no e-mail address"),
    (sharing(may_look=[""]), "may_look: entry 1 is no e-mail address"),
    (sharing(may_look=[3]), "may_look: entry 1 is no e-mail address"),
    (sharing(may_look=["a@b.org, c@d.org"]), "may_look: entry 1 is no e-mail address"),
    *((without(key), rf"\[auth\] needs {key}") for key in access.AUTH_KEYS),
    (auth(client_id=3), "needs client_id"),
    (auth(client_secret=" "), "needs client_secret"),
    (auth(cookie_secret="xxx"), "at least 32 random characters"),
    (auth(redirect_uri="https://lab.school.org/"), "must end in /oauth2callback"),
    (auth(redirect_uri="http://lab.school.org/oauth2callback"), "must begin with https://"),
    (auth(server_metadata_url="https://login.microsoftonline.com/common/v2.0/x"), "every Microsoft tenant"),
]


@pytest.mark.parametrize(("secrets", "message"), MISTAKES)
def test_a_mistake_lets_nobody_in_and_says_what_is_wrong(secrets, message):
    policy = access.policy_of(secrets)
    assert re.search(message, policy.mistake)
    for visitor in ({}, user(TEACHER), user(PUPIL)):
        assert policy.role(visitor) is Role.STRANGER


def test_a_message_tells_no_secret_and_no_address():
    for secrets, _ in MISTAKES:
        told = access.policy_of(secrets).mistake
        assert not any(word in told for word in (AUTH["cookie_secret"], "hush", PUPIL, "a@b.org"))


@pytest.mark.parametrize("base", ["lab", "/lab/", "lab/"])
def test_the_redirect_goes_below_the_base_path(base):
    assert "must end in /lab/oauth2callback" in access.policy_of(SHARED, base).mistake
    right = auth(redirect_uri="https://lab.school.org/lab/oauth2callback")
    assert access.policy_of(right, base).mistake == ""


def test_the_example_filled_in_is_right():
    text = (navigation.ROOT / ".streamlit/secrets.example.toml").read_text(encoding="utf-8")
    example = tomllib.loads(text)
    assert "[auth] needs cookie_secret" in access.policy_of(example).mistake
    example["auth"].update(cookie_secret=AUTH["cookie_secret"], client_id="a", client_secret="b")
    assert access.policy_of(example) == access.policy_of(SHARED)


# --- The secrets file of a server ----------------------------------------------------------------


@pytest.fixture
def secrets_file(tmp_path, monkeypatch):
    """Where a server of this test looks for its secrets."""
    import streamlit as st
    from streamlit.runtime.secrets import Secrets

    file = tmp_path / "secrets.toml"
    monkeypatch.setattr(st, "secrets", Secrets())
    option = st.get_option
    monkeypatch.setattr(
        st, "get_option", lambda name: [str(file)] if name == "secrets.files" else option(name)
    )
    monkeypatch.setattr("streamlit.config.get_option", st.get_option)
    return file


@pytest.mark.parametrize("content", [b"[auth", b"\xff\xfe", b"[auth]\n[auth]\n"])
def test_a_file_that_cannot_be_read_lets_nobody_in(secrets_file, content):
    assert access.role() is Role.OWNER
    secrets_file.write_bytes(content)
    assert access.role() is Role.STRANGER
    assert access.policy().mistake


def test_a_folder_in_its_place_lets_nobody_in(secrets_file):
    secrets_file.mkdir()
    assert access.role() is Role.STRANGER


def test_a_file_that_appears_shuts_the_door_and_none_opens_it_again(secrets_file):
    assert access.role() is Role.OWNER
    secrets_file.write_text(f"[sharing]\nmay_launch = {json.dumps([TEACHER])}\n")
    assert access.role() is Role.STRANGER
    secrets_file.unlink()
    assert access.role() is Role.STRANGER


@pytest.mark.parametrize("there", [(), ("authlib",), ("httpx", "httpx2")])
def test_without_the_packages_for_signing_in_the_page_says_what_to_install(secrets_file, monkeypatch, there):
    tables = "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in SHARED.items()
    )
    secrets_file.write_text(tables)
    monkeypatch.setattr(access, "_installed", lambda name: name in there)
    assert 'not installed: pip install ".[sharing]"' in access.policy().mistake


def test_headers_that_anybody_can_send_are_refused(secrets_file, monkeypatch):
    import streamlit as st

    option = st.get_option
    monkeypatch.setattr(
        st, "get_option", lambda name: {"X-Mail": "email"} if name.endswith("UserHeaders") else option(name)
    )
    assert "trustedUserHeaders" in access._obstacle()
    assert secrets_file.parent.exists()


# --- Pages ---------------------------------------------------------------------------------------


@pytest.fixture
def visit_as(quiet, app_test):  # noqa: ARG001 - no run may start
    """visit_as(user, "pages/...", id=...): the shared app as this visitor sees it, by AppTest."""

    def visited(visitor, file=None, secrets=SHARED, **parameters):
        test = app_test()
        test.secrets = secrets
        test.user = visitor
        for name, value in parameters.items():
            test.query_params[name] = value
        if file:
            test.switch_page(str(navigation.ROOT / file))
        test.run()
        assert not test.exception
        return test

    yield visited
    resources.forget_everything()
    tasks.tasks().close()


def said(test):
    return " ".join(element.value for kind in ("title", "markdown", "error") for element in test.get(kind))


def keys(test):
    return [button.key for button in test.button]


@pytest.mark.slow
@pytest.mark.parametrize("entry", navigation.PAGES, ids=lambda entry: entry.title)
def test_nobody_is_served_a_page_before_signing_in(visit_as, entry):
    run_id = live_runs.finished(resources.store())
    test = visit_as({"is_logged_in": False}, entry.file, id=run_id, runs=run_id)
    assert [title.value for title in test.title] == ["CIFAR Lab"]
    assert keys(test) == ["sign_in"]
    assert not test.sidebar.markdown
    assert run_id not in said(test)


@pytest.mark.slow
@pytest.mark.parametrize("visitor", [user("somebody@elsewhere.org"), user(TEACHER, email_verified=False)])
def test_who_is_on_no_list_is_told_so_and_can_sign_out(visit_as, visitor):
    test = visit_as(visitor, "pages/runs/runs.py")
    assert [title.value for title in test.title] == ["You are not on the list"]
    assert keys(test) == ["sign_out"]
    assert not test.sidebar.markdown
    assert ("not verified" in said(test) or "verified no e-mail" in said(test)) == (
        visitor["email"] == TEACHER
    )
    test.button("sign_out").click().run()
    assert [title.value for title in test.title] == ["CIFAR Lab"]


@pytest.mark.parametrize(("secrets", "message"), MISTAKES[:9])
def test_a_mistake_in_the_secrets_is_a_page_that_says_what_to_write(visit_as, secrets, message):
    test = visit_as(user(TEACHER), "pages/train/train.py", secrets=secrets)
    assert [title.value for title in test.title] == ["Nobody can come in yet"]
    assert re.search(message.replace("'", r"\\?'"), re.sub(r"\\(.)", r"\1", test.error[0].value))
    assert "[sharing]" in test.code[0].value
    assert not test.button
    assert not test.sidebar.markdown


@pytest.mark.slow
def test_the_sidebar_says_who_is_signed_in(visit_as):
    for visitor, words in ((user(TEACHER), "may launch"), (user(PUPIL), "change nothing")):
        text = " ".join(element.value for element in visit_as(visitor).sidebar.markdown)
        assert words in text
        assert visitor["email"].split("@")[0] in text


def test_alone_nothing_speaks_of_signing_in(open_page):
    test = open_page("pages/train/train.py")
    assert "sign_out" not in keys(test)
    assert "Signed in" not in " ".join(element.value for element in test.sidebar.markdown)


# --- Who may only look ---------------------------------------------------------------------------


@pytest.fixture
def press_as(visit_as):
    """press_as(email, find, "pages/..."): a button of a page drawn for a teacher, pressed as `email`.

    So the press is not stopped by the page: somebody may sign out, or lose a place on the list, after it was
    drawn. For a pupil the button has to be disabled besides.
    """

    def pressed(email, find, file, **parameters):
        if email == PUPIL:
            button = find(visit_as(user(PUPIL), file, **parameters))
            assert button.disabled
            assert button.help == access.WHY_NOT
        test = visit_as(user(TEACHER), file, **parameters)
        assert not find(test).disabled
        test.user = user(email)
        find(test).click().run()
        assert not test.exception
        return test

    return pressed


def launch_button(test):
    return next(button for button in test.button if button.key.startswith(("train_launch", "tune_launch")))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["pages/train/train.py", "pages/tune/tune.py"])
def test_only_launchers_launch(press_as, file, monkeypatch):
    monkeypatch.setattr(resources, "chosen_dataset", lambda: "synthetic")
    store = resources.store()
    press_as(PUPIL, launch_button, file)
    assert not len(store.runs())
    assert not len(store.searches())


@pytest.mark.slow
def test_a_launch_records_who_launched_it(visit_as, monkeypatch):
    monkeypatch.setattr(resources, "chosen_dataset", lambda: "synthetic")
    store = resources.store()
    test = visit_as(user(TEACHER), "pages/train/train.py")
    launch_button(test).click().run()
    assert not test.exception
    (run_id,) = store.runs()["id"]
    assert f"by {TEACHER}" in store.events(run_id)["message"].tolist()


def test_the_owner_launches_without_a_name(open_page, quiet, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(resources, "chosen_dataset", lambda: "synthetic")
    launch_button(open_page("pages/train/train.py")).click().run()
    (run_id,) = resources.store().runs()["id"]
    assert "launched" not in resources.store().events(run_id)["kind"].tolist()


ON_A_RUN = [
    (live_runs.queued, "stop", "queued"),
    (live_runs.running, "stop", "running"),
    (live_runs.failed, "resume", "failed"),
    (live_runs.finished, "delete_now", "finished"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "what", "state"), ON_A_RUN)
@pytest.mark.parametrize("email", [PUPIL, TEACHER])
def test_only_launchers_change_a_run(press_as, make, what, state, email):
    store = resources.store()
    run_id = make(store)
    press_as(email, lambda test: test.button(f"{what}_{run_id}"), "pages/runs/run.py", id=run_id)
    there = store.runs()
    unchanged = run_id in there["id"].tolist() and store.get(run_id).state == state
    assert unchanged == (email == PUPIL)


@pytest.mark.slow
@pytest.mark.parametrize("email", [PUPIL, TEACHER])
@pytest.mark.parametrize("where", ["sidebar_stop", "queue_cancel"])
def test_only_launchers_stop_from_the_sidebar_and_the_queue(press_as, email, where):
    store = resources.store()
    run_id = live_runs.queued(store)
    press_as(email, lambda test: test.button(f"{where}_{run_id}"), "pages/train/train.py")
    assert (store.get(run_id).state == "queued") == (email == PUPIL)


@pytest.mark.slow
@pytest.mark.parametrize("email", [PUPIL, TEACHER])
def test_only_launchers_stop_and_delete_a_search(press_as, email):
    store = resources.store()
    search = store.create_search(SearchConfig(model="base_cnn", tuner="random"))
    press_as(email, lambda test: test.button(f"stop_{search}"), "pages/tune/tune.py", search=search)
    assert (store.get_search(search).state == "queued") == (email == PUPIL)
    if email == PUPIL:
        store.request_stop(search)
    press_as(email, lambda test: test.button(f"delete_now_{search}"), "pages/tune/tune.py", search=search)
    assert len(store.searches()) == (email == PUPIL)


@pytest.mark.slow
@pytest.mark.parametrize("email", [PUPIL, TEACHER])
def test_only_launchers_queue_more_seeds(press_as, email):
    store = resources.store()
    run_id = live_runs.finished(store)
    press_as(email, lambda test: test.button("more_seeds"), "pages/leaderboard/leaderboard.py", chosen=run_id)
    assert len(store.runs()) == (1 if email == PUPIL else 4)


def test_only_launchers_tag(visit_as, monkeypatch):
    """The button of a form can't be wrapped: what it calls is."""
    from pages.mistakes import tags as gallery_tags

    told = []
    monkeypatch.setattr(access.st, "toast", lambda text, **_: told.append(text))
    visit_as(user(PUPIL))
    for role, tags in ((Role.LOOK, 0), (Role.LAUNCH, 1)):
        monkeypatch.setattr(access, "role", lambda role=role: role)
        gallery_tags._tag("f00d", 3, "ambiguous")
        assert len(resources.store().image_tags("f00d")) == tags
    monkeypatch.setattr(access, "role", lambda: Role.LOOK)
    gallery_tags._untag("f00d", 3, "ambiguous")
    assert len(resources.store().image_tags("f00d")) == 1
    assert told == [access.WHY_NOT] * 2


# --- Files of the machine ------------------------------------------------------------------------


@pytest.mark.parametrize("visitor", [user(PUPIL), user(TEACHER)])
def test_no_path_is_asked_for_while_shared(visit_as, visitor):
    test = visit_as(visitor, "pages/dataset/dataset.py", dataset="cifar10")
    assert not test.text_input
    assert "import" not in keys(test)
    assert test.button("download").disabled == (visitor["email"] == PUPIL)


def test_the_owner_is_asked_for_a_path(open_page):
    test = open_page("pages/dataset/dataset.py", dataset="cifar10")
    assert test.text_input("import_path")
    assert test.button("import")


@pytest.mark.slow
@pytest.mark.parametrize("email", [PUPIL, TEACHER])
def test_only_launchers_start_a_download(press_as, monkeypatch, email):
    started = []
    monkeypatch.setattr("pages.dataset.source._download", started.append)
    press_as(email, lambda test: test.button("download"), "pages/dataset/dataset.py", dataset="cifar10")
    assert len(started) == (email == TEACHER)


@pytest.mark.parametrize("path", ["../../etc", "/etc", "..", "%2e%2e", "runs/../.."])
def test_the_address_leads_to_runs_only(visit_as, path):
    test = visit_as(user(PUPIL), "pages/runs/run.py", id=path)
    assert [title.value for title in test.title] == ["No such run"]
    assert not test.get("download_button")


@pytest.mark.parametrize("role", [Role.LAUNCH, Role.LOOK])
def test_a_path_that_is_sent_all_the_same_is_not_read(monkeypatch, tmp_path, role):
    from pages.dataset import source
    from pages.mistakes import people as people

    state = {"people_path": str(tmp_path), "import_path": str(tmp_path)}
    monkeypatch.setattr(access.st, "session_state", state)
    monkeypatch.setattr(access, "role", lambda: role)
    source._start_import()
    people._take()
    assert state[people.NOTHING]
    assert tasks.tasks().get(source.IMPORT) is None
    assert tasks.tasks().get(people.IMPORT) is None


@pytest.mark.parametrize("allowed", [True, False])
def test_a_press_that_is_sent_all_the_same_counts_from_launchers_only(monkeypatch, allowed):
    monkeypatch.setattr(access, "may_launch", lambda: allowed)
    monkeypatch.setattr(access.st, "button", lambda *_, **__: True)
    assert access.button("Launch") is allowed
