"""The project's own files agree with each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# What Colab had in August 2026. The course must not ask for more, or it would replace them.
COLAB = {"torch": "2.11.0", "transformers": "5.15.0", "datasets": "4.0.0", "numpy": "2.1.3"}


def requirements(lines):
    return {requirement.name.lower(): requirement for requirement in map(Requirement, lines)}


def test_environment_yml_equals_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert "--editable ." in pip
    listed = requirements([*conda, *(line for line in pip if not line.startswith("--"))])
    assert listed.pop("python").specifier == Requirement("python" + PROJECT["requires-python"]).specifier
    listed.pop("pip")
    listed["torch"] = Requirement(str(listed.pop("pytorch")).replace("pytorch", "torch"))
    wanted = requirements([*PROJECT["dependencies"], *EXTRAS["lab"], *EXTRAS["offline"], *EXTRAS["dev"]])
    assert {name: str(r) for name, r in listed.items()} == {name: str(r) for name, r in wanted.items()}


def test_pyproject_gives_lower_bounds_only():
    for name, requirement in requirements(PROJECT["dependencies"]).items():
        assert [s.operator for s in requirement.specifier] == [">="], name


def test_the_bounds_admit_what_colab_has():
    wanted = requirements(PROJECT["dependencies"])
    for name, version in COLAB.items():
        assert version in wanted[name].specifier, f"{wanted[name]} would replace Colab's {name} {version}"


def test_the_constraints_pin_every_dependency_within_its_bounds():
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;#]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    everything = requirements([*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)])
    for name, requirement in everything.items():
        assert name in pins, f"constraints.txt does not pin {name}"
        assert pins[name] in requirement.specifier
    assert pins["torch"] == "2.13.0"


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, xlmr_course; print(sorted({'torch', 'datasets', 'numpy', 'transformers'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_ci_runs_the_readme_s_test_command():
    assert "make test" in (ROOT / "README.md").read_text()
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_no_link_in_the_readme_leads_nowhere():
    for file in [ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "data" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8")):
            if not re.match(r"https?:|mailto:", target):
                assert (file.parent / target).exists(), f"{file.name} links to {target}"


def test_pre_commit_runs_the_pinned_ruff():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    revision = next(repo["rev"] for repo in hooks if repo["repo"].endswith("ruff-pre-commit"))
    assert f"ruff=={revision.removeprefix('v')}\n" in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("module", sorted(p.stem for p in (ROOT / "xlmr_course").rglob("*.py") if p.stem[0] != "_"))
def test_every_module_is_imported_by_a_test(module):
    tests = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    assert re.search(rf"^(?:from|import) .*\b{module}\b", tests, re.MULTILINE), f"no test imports {module}"
