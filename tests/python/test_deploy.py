"""The files in deploy/ that nothing here can run are at least read by linters. The proxies' files are run, by
tests/operations."""

import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BIN = pathlib.Path(sys.executable).parent


def lint(program, *args):
    result = subprocess.run([BIN / program, *args], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_hadolint_finds_nothing_in_the_dockerfile():
    lint("hadolint", DEPLOY / "Dockerfile")


def test_yamllint_finds_nothing_in_the_blueprint():
    rules = "{extends: default, rules: {document-start: disable, line-length: {max: 120}}}"
    lint("yamllint", "--strict", "-d", rules, DEPLOY / "render.yaml")


def test_the_blueprint_builds_the_dockerfile_that_is_there():
    (service,) = yaml.safe_load((DEPLOY / "render.yaml").read_text())["services"]
    assert (ROOT / service["dockerfilePath"]).is_file()
    assert service["healthCheckPath"] == "/health/ready"
    assert service["numInstances"] == 1
