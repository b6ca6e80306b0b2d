"""The manifests, as podman plays them and as a cluster gets them. Nothing is started here."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bluesky_plugins.settings import SlurmTargetSettings, load_settings

pytestmark = pytest.mark.pods

ROOT = Path(__file__).parents[2]
PODS = ROOT / "pods"
NAMES = ("acquisition", "databroker", "recommender", "compute")
WITH_NGINX = ("acquisition", "databroker", "recommender")
# `options` of patches, which turn a Pod into a Deployment, came with Kustomize 4.2.
OLDEST_KUBECTL = (1, 22)

Document = dict[str, Any]


def manifest(name: str) -> Document:
    document: Document = yaml.safe_load((PODS / f"{name}.yaml").read_text())
    return document


def containers() -> Iterator[tuple[str, Document]]:
    for name in NAMES:
        for container in manifest(name)["spec"]["containers"]:
            yield f"{name}-{container['name']}", container


def schema_errors(document: Document) -> str:
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{document['kind']} {document['metadata']['name']}: {error}"
    return ""


CONTAINERS = dict(containers())
each_pod = pytest.mark.parametrize("name", NAMES)
each_container = pytest.mark.parametrize("name", CONTAINERS)


# -- what podman plays ----------------------------------------------------------------------


@each_pod
def test_a_pod_fits_the_schema(name: str) -> None:
    assert schema_errors(manifest(name)) == ""


@each_pod
def test_a_pod_has_only_what_podman_can_play(name: str) -> None:
    (document,) = yaml.safe_load_all((PODS / f"{name}.yaml").read_text())
    assert document["kind"] == "Pod"
    assert document["spec"]["restartPolicy"] == "Always"
    assert "initContainers" not in document["spec"]
    # A pod of one container is stopped with it.
    assert len(document["spec"]["containers"]) >= 2


@each_container
def test_a_container_is_confined(name: str) -> None:
    context = CONTAINERS[name]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["runAsNonRoot"]) == (
        1000,
        1000,
        True,
    )
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True


@each_container
def test_a_container_has_a_limit_of_memory(name: str) -> None:
    assert re.fullmatch(r"\d+[MG]i", CONTAINERS[name]["resources"]["limits"]["memory"])


@each_container
def test_a_container_is_started_by_the_entrypoint_of_its_image(name: str) -> None:
    # `command` would leave out catatonit, and a process that ignores SIGTERM costs 10 s a stop.
    assert "command" not in CONTAINERS[name]
    assert CONTAINERS[name]["args"]


@each_container
def test_a_probe_is_a_program_with_plain_arguments(name: str) -> None:
    # podman joins them by blanks and gives them to a shell.
    command = CONTAINERS[name]["livenessProbe"]["exec"]["command"]
    assert [word for word in command if not re.fullmatch(r"[\w./:@=+-]+", word)] == []


@each_container
def test_a_probe_does_not_count_failures_of_a_start(name: str) -> None:
    assert CONTAINERS[name]["livenessProbe"]["initialDelaySeconds"] >= 20


@each_container
def test_every_listed_port_is_one_of_this_machine_alone(name: str) -> None:
    # A port that is listed without a host port gets one from podman, on all addresses.
    for port in CONTAINERS[name].get("ports", []):
        assert port["hostIP"] == "127.0.0.1"
        assert port["hostPort"] == port["containerPort"]


def test_only_kafka_nginx_and_sshd_have_host_ports() -> None:
    ports = {
        name: [port["hostPort"] for port in container["ports"]]
        for name, container in CONTAINERS.items()
        if "ports" in container
    }
    assert ports == {
        "acquisition-kafka": [9092],
        "acquisition-nginx": [60610],
        "databroker-nginx": [60640],
        "recommender-nginx": [60620],
        "compute-sshd": [60622],
    }


def test_scratch_folders_have_names_of_their_own() -> None:
    # podman makes a volume of that very name for each.
    names = [
        volume["name"]
        for name in NAMES
        for volume in manifest(name)["spec"]["volumes"]
        if "emptyDir" in volume
    ]
    assert len(names) == len(set(names))
    for name in NAMES:
        mounts = [
            mount["name"]
            for container in manifest(name)["spec"]["containers"]
            for mount in container["volumeMounts"]
            if mount["mountPath"] == "/tmp"
        ]
        assert len(mounts) == len(set(mounts)) == len(manifest(name)["spec"]["containers"])


@each_pod
def test_every_volume_is_used_and_every_mount_has_one(name: str) -> None:
    spec = manifest(name)["spec"]
    mounted = {m["name"] for container in spec["containers"] for m in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize("name", WITH_NGINX)
def test_the_host_ports_reach_what_the_configuration_listens_on(name: str) -> None:
    (port,) = (p["hostPort"] for p in CONTAINERS[f"{name}-nginx"]["ports"])
    configuration = (PODS / name / "nginx.conf").read_text()
    assert f"listen {port};" in configuration


def test_nginx_passes_on_to_the_ports_of_the_settings() -> None:
    http = load_settings(PODS / "settings.yaml", with_stack=False).http
    for name, port in (
        ("acquisition", http.queueserver_port),
        ("recommender", http.recommender_port),
    ):
        assert f"server 127.0.0.1:{port} " in (PODS / name / "nginx.conf").read_text()


def mounts_of(container: str) -> dict[str, str]:
    """Name of a volume -> where it is mounted."""
    return {mount["name"]: mount["mountPath"] for mount in CONTAINERS[container]["volumeMounts"]}


def test_the_recommender_finds_the_compute_pod_where_the_settings_say() -> None:
    target = load_settings(PODS / "settings.yaml", with_stack=False).processing.targets["slurm"]
    assert isinstance(target, SlurmTargetSettings)
    (port,) = CONTAINERS["compute-sshd"]["ports"]
    assert (target.host, target.port) == ("compute", port["containerPort"])
    lines = (PODS / "compute/sshd_config").read_text().splitlines()
    assert {f"Port {target.port}", f"AllowUsers {target.user}"} <= set(lines)
    assert Path(target.work_dir).parent == Path(mounts_of("compute-slurm")["jobs"])
    assert mounts_of("compute-slurm")["jobs"] == mounts_of("compute-sshd")["jobs"]


def test_the_camera_s_files_are_where_the_targets_look_for_them() -> None:
    settings = load_settings(PODS / "settings.yaml", with_stack=False)
    (rule,) = settings.processing.targets["slurm"].paths
    assert rule.local == str(settings.camera_dir)
    assert mounts_of("acquisition-ioc-camera")["camera-files"] == rule.local
    assert mounts_of("recommender-recommender")["camera-files"] == rule.local
    assert mounts_of("compute-slurm")["camera-files"] == rule.remote
    volumes = {n: {v["name"]: v for v in manifest(n)["spec"]["volumes"]} for n in NAMES}
    claims = [
        volumes[pod]["camera-files"]["persistentVolumeClaim"]["claimName"]
        for pod in ("acquisition", "recommender", "compute")
    ]
    assert len(set(claims)) == 1


def test_the_pods_have_the_recipes_of_every_stack() -> None:
    theirs = yaml.safe_load((PODS / "recommender/recipes.yaml").read_text())
    ours = ROOT / "bluesky_plugins/processing/examples/recipes.yaml"
    assert theirs == yaml.safe_load(ours.read_text())


def test_kafka_advertises_its_host_port_and_the_addresses_of_the_settings() -> None:
    lines = (PODS / "acquisition/kafka.properties").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    (port,) = (p["hostPort"] for p in CONTAINERS["acquisition-kafka"]["ports"])
    advertised = dict(item.split("://") for item in values["advertised.listeners"].split(","))
    settings = load_settings(PODS / "settings.yaml", with_stack=False)
    assert advertised["EDGE"] == f"127.0.0.1:{port}"
    assert advertised["LOCAL"] == settings.kafka.bootstrap_servers
    for pod, container in (("databroker", "recorder"), ("recommender", "recommender")):
        environment = {e["name"]: e["value"] for e in CONTAINERS[f"{pod}-{container}"]["env"]}
        assert environment["BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS"] == advertised["PODS"]


def test_no_settings_file_of_the_pods_holds_a_secret() -> None:
    values = yaml.safe_load((PODS / "settings.yaml").read_text())
    assert "uri" not in values.get("mongo", {})
    assert "url" not in values.get("redis", {})
    assert "api_key" not in values["http"]


# -- what the launcher makes of it ----------------------------------------------------------


def launcher(script: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'source "{ROOT}/launchers/pods.sh"; {script}'],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@each_pod
def test_the_launcher_plays_the_files_as_they_are(name: str) -> None:
    documents = list(yaml.safe_load_all(launcher(f"bp_documents {name}")))
    maps = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
    assert documents[-1] == manifest(name)
    assert [error for document in documents if (error := schema_errors(document))] == []
    if name in WITH_NGINX:
        assert maps["bluesky-settings"] == {"settings.yaml": (PODS / "settings.yaml").read_text()}
        nginx = (PODS / name / "nginx.conf").read_text()
        assert maps[f"{name}-nginx-configuration"] == {"nginx.conf": nginx}
    wanted = {v["configMap"]["name"] for v in documents[-1]["spec"]["volumes"] if "configMap" in v}
    assert maps.keys() == wanted


def test_the_folder_that_is_given_is_what_jobs_see() -> None:
    script = "BP_DATA_FOLDER='/a folder/with & and #'; bp_documents compute"
    *_, pod = yaml.safe_load_all(launcher(script))
    (volume,) = (v for v in pod["spec"]["volumes"] if v["name"] == "data")
    assert volume["hostPath"] == {"path": "/a folder/with & and #", "type": "Directory"}


@each_pod
def test_the_launcher_reads_the_manifest_as_it_is_meant(name: str) -> None:
    spec = manifest(name)["spec"]
    claims = {
        v["persistentVolumeClaim"]["claimName"]
        for v in spec["volumes"]
        if "persistentVolumeClaim" in v
    }
    ports = [str(p["hostPort"]) for c in spec["containers"] for p in c.get("ports", [])]
    assert launcher(f"bp_containers_of {name}").split() == [c["name"] for c in spec["containers"]]
    assert set(launcher(f"bp_images_of {name}").split()) == {c["image"] for c in spec["containers"]}
    assert launcher(f"bp_host_ports_of {name}").split() == ports
    assert set(launcher(f"bp_claims_of {name}").split()) == claims
    assert launcher(f"bp_scratch_of {name}").split() == [
        v["name"] for v in spec["volumes"] if "emptyDir" in v
    ]


# -- what a cluster gets --------------------------------------------------------------------


def kubectl() -> str:
    """A kubectl whose Kustomize can do what the overlay asks."""
    path = shutil.which("kubectl")
    reason = "kubectl is not installed"
    if path is not None:
        said = subprocess.run(
            [path, "version", "--client"], capture_output=True, text=True, check=False, timeout=30
        )
        found = re.search(r"v(\d+)\.(\d+)", said.stdout)
        if found and (int(found[1]), int(found[2])) >= OLDEST_KUBECTL:
            return path
        reason = f"kubectl 1.{OLDEST_KUBECTL[1]} or later is needed: {said.stdout or said.stderr}"
    # In CI too: no package of Debian 12 or of pip brings one that is new enough.
    pytest.skip(reason)


def kustomized(folder: Path) -> list[Document]:
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def cluster() -> list[Document]:
    """Everything that `kubectl apply -k pods` would send."""
    return kustomized(PODS)


def of_kind(documents: list[Document], kind: str) -> dict[str, Document]:
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


def pod_specs(documents: list[Document]) -> dict[str, Document]:
    return {
        name: deployment["spec"]["template"]["spec"]
        for name, deployment in of_kind(documents, "Deployment").items()
    }


def test_what_a_cluster_gets_fits_the_schema(cluster: list[Document]) -> None:
    assert [error for document in cluster if (error := schema_errors(document))] == []


def test_a_cluster_gets_the_same_containers(cluster: list[Document]) -> None:
    specs = pod_specs(cluster)
    assert specs.keys() == set(NAMES)
    for name, spec in specs.items():
        ours = {c["name"]: c["image"] for c in manifest(name)["spec"]["containers"]}
        assert {c["name"]: c["image"] for c in spec["containers"]} == ours


def test_two_pods_of_a_kind_never_share_their_data_on_a_cluster(cluster: list[Document]) -> None:
    for name, deployment in of_kind(cluster, "Deployment").items():
        spec = deployment["spec"]
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
        assert spec["selector"]["matchLabels"] == {"app": name}
        assert spec["template"]["metadata"]["labels"]["app"] == name


def test_nothing_has_a_host_port_on_a_cluster(cluster: list[Document]) -> None:
    for spec in pod_specs(cluster).values():
        for container in spec["containers"]:
            for port in container.get("ports", []):
                assert port.keys() == {"containerPort"}


def test_secrets_of_a_cluster_are_places_without_values(cluster: list[Document]) -> None:
    secrets = of_kind(cluster, "Secret")
    assert secrets.keys() == {f"{name}-secrets" for name in NAMES}
    assert [s for s in secrets.values() if "data" in s or "stringData" in s] == []
    for name, spec in pod_specs(cluster).items():
        (volume,) = (v for v in spec["volumes"] if v["name"] == "secrets")
        assert volume.keys() == {"name", "secret"}
        assert volume["secret"]["secretName"] == f"{name}-secrets"


def test_every_volume_of_a_cluster_has_its_claim_or_configuration(cluster: list[Document]) -> None:
    volumes = [v for spec in pod_specs(cluster).values() for v in spec["volumes"]]
    claims = {
        v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v
    }
    maps = {v["configMap"]["name"] for v in volumes if "configMap" in v}
    assert claims == of_kind(cluster, "PersistentVolumeClaim").keys()
    assert maps == of_kind(cluster, "ConfigMap").keys()


def test_a_service_leads_to_each_port_that_other_pods_use(cluster: list[Document]) -> None:
    services = of_kind(cluster, "Service")
    ports = {name: {p["port"] for p in s["spec"]["ports"]} for name, s in services.items()}
    assert ports == {
        "acquisition": {29092, 9092, 27017, 60610},
        "databroker": {60640},
        "recommender": {60620},
        "compute": {60622},
    }
    assert all(s["spec"]["selector"] == {"app": name} for name, s in services.items())


FACILITY = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: beamline
resources: [../pods]
components: [../pods/cluster/facility-servers]
images:
  - {name: localhost/bluesky, newName: registry.facility.example/bluesky, newTag: "1"}
configMapGenerator:
  - name: bluesky-settings
    behavior: replace
    files: [settings.yaml]
"""


@pytest.fixture(scope="module")
def facility(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """What a facility with Kafka and MongoDB of its own makes of it, as README.md says."""
    folder = tmp_path_factory.mktemp("facility")
    shutil.copytree(PODS, folder / "pods")
    (folder / "beamline").mkdir()
    (folder / "beamline/kustomization.yaml").write_text(FACILITY)
    (folder / "beamline/settings.yaml").write_text(
        "kafka: {bootstrap_servers: 'kafka.facility.example:9093'}\n"
    )
    return kustomized(folder / "beamline")


def test_what_a_facility_gets_fits_the_schema(facility: list[Document]) -> None:
    assert [error for document in facility if (error := schema_errors(document))] == []


def test_a_facility_with_servers_of_its_own_gets_none_of_ours(facility: list[Document]) -> None:
    specs = pod_specs(facility)
    names = {c["name"] for spec in specs.values() for c in spec["containers"]}
    claims = of_kind(facility, "PersistentVolumeClaim").keys()
    environment = {
        entry["name"]
        for spec in specs.values()
        for container in spec["containers"]
        for entry in container.get("env", [])
    }
    assert names & {"kafka", "mongo"} == set()
    assert {"recorder", "queueserver", "recommender", "redis"} <= names
    assert [claim for claim in claims if "kafka" in claim or "mongo" in claim] == []
    # Kafka is then where the settings say, for every pod.
    assert "BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS" not in environment
    settings = of_kind(facility, "ConfigMap")["bluesky-settings"]["data"]["settings.yaml"]
    assert yaml.safe_load(settings)["kafka"]["bootstrap_servers"] == "kafka.facility.example:9093"
    images = {c["image"] for spec in specs.values() for c in spec["containers"]}
    assert "registry.facility.example/bluesky:1" in images
