"""Settings: where a value comes from, and what is refused."""

import json
from pathlib import Path

import pytest

from bluesky_plugins.settings import ConfigurationError, load_settings, state_dir


@pytest.fixture(autouse=True)
def own_state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLUESKY_PLUGINS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("BLUESKY_PLUGINS_CONFIG", raising=False)
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def config(path: Path, text: str) -> Path:
    file = path / "settings.yaml"
    file.write_text(text)
    return file


def test_unknown_environment_name_is_refused_with_the_nearest_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVER", "x:1")
    with pytest.raises(ConfigurationError, match="mean BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS"):
        load_settings()


@pytest.mark.parametrize("name", ["BLUESKY_PLUGINS_TEST_MONGO", "BLUESKY_PLUGINS_STATE_DIR"])
def test_names_that_are_no_settings_are_let_through(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, str(tmp_path))
    assert load_settings().beamline == "mad"


def test_unknown_key_in_the_file_is_refused_with_the_nearest_known(tmp_path: Path) -> None:
    file = config(tmp_path, "kafka: {partitionss: 2}")
    with pytest.raises(ConfigurationError, match=r"kafka\.partitionss; did you mean partitions"):
        load_settings(file)


def test_unknown_section_is_refused_with_the_nearest_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="kafak; did you mean kafka"):
        load_settings(config(tmp_path, "kafak: {}"))


def test_environment_wins_over_file_and_file_over_stack(
    own_state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = {"kafka": {"bootstrap_servers": "s:1", "partitions": 1, "replication_factor": 1}}
    (own_state_dir / "stack.json").write_text(json.dumps({"version": 1, "settings": stack}))
    file = config(tmp_path, "kafka: {partitions: 2, replication_factor: 2}")
    monkeypatch.setenv("BLUESKY_PLUGINS_KAFKA__REPLICATION_FACTOR", "3")
    kafka = load_settings(file).kafka
    assert (kafka.address, kafka.partitions, kafka.replication_factor) == ("s:1", 2, 3)


def test_without_the_stack_only_what_a_person_set_is_seen(own_state_dir: Path) -> None:
    stack = {"kafka": {"bootstrap_servers": "s:1"}}
    (own_state_dir / "stack.json").write_text(json.dumps({"version": 1, "settings": stack}))
    assert load_settings(with_stack=False).kafka.bootstrap_servers is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("kafka: [", "not YAML"), ("- 1", "a mapping"), ("kafka: {partitions: 0}", "partitions")],
)
def test_file_that_cannot_be_used_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_settings(config(tmp_path, text))


def test_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml"):
        load_settings(tmp_path / "nowhere.yaml")


def test_damaged_stack_file_is_named(own_state_dir: Path) -> None:
    (own_state_dir / "stack.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"stack\.json"):
        load_settings()


def test_secrets_are_in_no_repr_and_no_error(tmp_path: Path) -> None:
    file = config(
        tmp_path,
        "kafka: {producer_config: {sasl.password: hidden}}\n"
        "mongo: {uri: 'mongodb://me:hidden@h/'}\n"
        "redis: {url: 'redis://:hidden@h:1/0'}\n"
        "http: {api_key: hidden}\n",
    )
    assert "hidden" not in repr(load_settings(file))
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config(tmp_path, "http: {api_key: [hidden]}"))
    assert "hidden" not in str(caught.value)


def test_state_folder_is_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLUESKY_PLUGINS_STATE_DIR", "here")
    assert state_dir() == Path.cwd() / "here"


def test_key_is_read_from_its_file(own_state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_state_dir / "api_key").write_text("secret\n")
    monkeypatch.setenv("BLUESKY_PLUGINS_HTTP__API_KEY_FILE", str(own_state_dir / "api_key"))
    assert load_settings().http.key() == "secret"


def test_key_file_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLUESKY_PLUGINS_HTTP__API_KEY_FILE", "/nowhere/api_key")
    with pytest.raises(ConfigurationError, match="/nowhere/api_key"):
        load_settings().http.key()


@pytest.mark.parametrize(
    "text",
    [
        'mongo: {uri: "mongodb://me:hidden@h:1"',
        "mongo: {uri: *hidden}",
        "redis:\n  url: hidden: yes",
        "mongo: {uri: 'mongodb://me:hi:dden@h:p/hidden'}",
        "redis: {url: 'http://:hidden@h:1'}",
    ],
)
def test_a_file_that_is_wrong_is_not_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config(tmp_path, text))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "field", "address"),
    [
        ("MONGO", "URI", "mongodb://me:pw@a:27017,b:27018,[::1]:27019/?replicaSet=x"),
        ("MONGO", "URI", "mongodb+srv://cluster.example"),
        ("REDIS", "URL", "redis://:pw@h/0"),
        ("REDIS", "URL", "rediss://me:pw@[::1]:6380/1"),
        ("REDIS", "URL", "unix:///run/redis.sock?db=1"),
    ],
)
def test_an_address_of_a_facility_is_taken(
    monkeypatch: pytest.MonkeyPatch, section: str, field: str, address: str
) -> None:
    monkeypatch.setenv(f"BLUESKY_PLUGINS_{section}__{field}", address)
    assert getattr(load_settings(), section.lower()).address == address


@pytest.mark.parametrize(
    ("section", "field", "address"),
    [
        ("MONGO", "URI", "redis://h:1"),
        ("MONGO", "URI", "mongodb://h:1:2"),
        ("MONGO", "URI", "mongodb://"),
        ("REDIS", "URL", "h:6379"),
        ("REDIS", "URL", "redis://h:port"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_by_its_setting(
    monkeypatch: pytest.MonkeyPatch, section: str, field: str, address: str
) -> None:
    monkeypatch.setenv(f"BLUESKY_PLUGINS_{section}__{field}", address)
    with pytest.raises(ConfigurationError, match=f"{section}.{field}".lower()):
        load_settings()


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("BLUESKY_PLUGINS_SECRETS_DIR", str(folder))
    return folder


def test_a_secret_file_wins_over_the_settings_file(secrets: Path, tmp_path: Path) -> None:
    (secrets / "BLUESKY_PLUGINS_REDIS__URL").write_text("redis://:secret@h:1/0\n")
    file = config(tmp_path, "redis: {url: 'redis://f:1/0'}")
    assert load_settings(file).redis.address == "redis://:secret@h:1/0"


def test_the_environment_wins_over_a_secret_file(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "BLUESKY_PLUGINS_REDIS__URL").write_text("redis://secret:1/0")
    monkeypatch.setenv("BLUESKY_PLUGINS_REDIS__URL", "redis://e:1/0")
    assert load_settings().redis.address == "redis://e:1/0"


def test_a_secret_file_holds_json_where_the_environment_would(secrets: Path) -> None:
    (secrets / "BLUESKY_PLUGINS_KAFKA__PRODUCER_CONFIG").write_text('{"sasl.password": "x"}\n')
    assert load_settings().kafka.producer_config == {"sasl.password": "x"}


def test_an_unknown_secret_file_is_refused_with_the_nearest_known(secrets: Path) -> None:
    (secrets / "BLUESKY_PLUGINS_REDIS_URL").write_text("hidden")
    with pytest.raises(ConfigurationError, match="did you mean BLUESKY_PLUGINS_REDIS__URL"):
        load_settings()


def test_files_of_others_in_the_secrets_folder_are_left_alone(secrets: Path) -> None:
    (secrets / "api_key").write_bytes(b"\xff")
    (secrets / "..data").mkdir()
    assert load_settings().beamline == "mad"


def test_a_secret_file_that_is_no_text_is_named_and_not_quoted(secrets: Path) -> None:
    (secrets / "BLUESKY_PLUGINS_REDIS__URL").write_bytes(b"hidden\xff")
    with pytest.raises(ConfigurationError, match="BLUESKY_PLUGINS_REDIS__URL") as caught:
        load_settings()
    assert "hidden" not in str(caught.value)


def test_a_secret_file_that_cannot_be_read_is_named(secrets: Path) -> None:
    # A link to nothing: root may read every file.
    (secrets / "BLUESKY_PLUGINS_REDIS__URL").symlink_to(secrets / "nowhere")
    with pytest.raises(ConfigurationError, match="BLUESKY_PLUGINS_REDIS__URL: No such file"):
        load_settings()


def test_a_secret_value_that_does_not_fit_is_not_quoted(secrets: Path) -> None:
    (secrets / "BLUESKY_PLUGINS_KAFKA__PRODUCER_CONFIG").write_text("hidden")
    (secrets / "BLUESKY_PLUGINS_MONGO__URI").write_text("hidden")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "hidden" not in str(caught.value)


def test_a_secrets_folder_that_is_missing_is_named(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLUESKY_PLUGINS_SECRETS_DIR", str(secrets / "nowhere"))
    with pytest.raises(ConfigurationError, match=r"secrets folder .*nowhere"):
        load_settings()


@pytest.mark.parametrize(
    "text",
    [
        "document_proxy: proxy",
        "document_proxy: 'h:70000'",
        "document_proxy: 'tcp://h:1'",
        "iocs: {address_list: []}",
        "iocs: {address_list: ['a b']}",
        "iocs: {address_list: ['h:0']}",
    ],
)
def test_an_address_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"document_proxy|iocs\.address_list"):
        load_settings(config(tmp_path, text))


def test_epics_clients_look_at_every_address_of_the_list(tmp_path: Path) -> None:
    file = config(tmp_path, "iocs: {ca_server_port: 6000, address_list: ['a', 'b:5066']}")
    found = load_settings(file).epics_environment["EPICS_CA_ADDR_LIST"]
    assert found == "a:6000 b:5066"


def test_a_target_s_programs_have_names_and_absolute_paths(tmp_path: Path) -> None:
    text = "processing: {targets: {local: {kind: local, programs: {fit: /opt/fit/bin/fit}}}}"
    local = load_settings(config(tmp_path, text)).processing.targets["local"]
    assert local.programs == {"fit": "/opt/fit/bin/fit"}


@pytest.mark.parametrize("programs", ["{/bin/fit: /opt/fit}", "{'': /opt/fit}", "{fit: bin/fit}"])
def test_a_target_s_program_that_is_none_is_refused(tmp_path: Path, programs: str) -> None:
    text = f"processing: {{targets: {{local: {{kind: local, programs: {programs}}}}}}}"
    with pytest.raises(ConfigurationError, match=r"programs: .*(name of a program|absolute path)"):
        load_settings(config(tmp_path, text))
