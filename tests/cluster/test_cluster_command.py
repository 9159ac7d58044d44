"""`cifar-lab cluster`: what it says without Ray, without a token, and for a wrong resource."""

import subprocess
import sys

import pytest

from cifar_core.cli import main
from cifar_core.errors import ConfigError
from cifar_core.workers.cluster.ray_nodes import RayNodes


def test_without_ray_it_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["cluster"]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_a_cluster_elsewhere_needs_a_token(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="wants a token"):
        RayNodes("192.0.2.1:6379")


@pytest.mark.parametrize("text", ["big", "big=", "=1", "big=none", "big=0"])
def test_a_resource_is_a_name_and_an_amount(text, capsys):
    assert main(["cluster", "--resource", text]) == 2
    assert "NAME=AMOUNT" in capsys.readouterr().err


def test_commands_import_no_ray():
    code = (
        "import sys; import cifar_core.cli.cluster, cifar_core.cli.tune;"
        "import cifar_core.workers.cluster.driver, cifar_core.workers.cluster.search;"
        "assert not {'ray', 'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
