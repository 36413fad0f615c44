import os
import subprocess
import sys

PROGRAM = """
import sys, warnings
from recipekit.console import log_to, main, show
from recipekit.errors import UserError

def command() -> None:
    log_to("demo")
    print("library output")
    print("library warning", file=sys.stderr)
    show("demo: a line for people")
    {ending}

main(command)
"""


def run(tmp_path, ending, log=True):
    env = {key: value for key, value in os.environ.items() if key != "LOG_DIR"} | (
        {"LOG_DIR": str(tmp_path)} if log else {}
    )
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ending=ending)], env=env, capture_output=True, text=True
    )


def test_the_screen_shows_the_step_and_the_log_everything(tmp_path):
    result = run(tmp_path, "pass")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "demo: a line for people\n")
    assert set((tmp_path / "demo.log").read_text().splitlines()) == {
        "library output",
        "library warning",
        "demo: a line for people",
    }


def test_a_users_mistake_is_lines_and_exit_code_2(tmp_path):
    result = run(tmp_path, "raise UserError(['a.yml:3: x', 'b.yml:4: y'])")
    assert result.returncode == 2
    assert result.stderr.splitlines()[1:] == ["error: a.yml:3: x", "error: b.yml:4: y"]


def test_a_defect_is_one_line_on_the_screen_and_its_traceback_is_in_the_log(tmp_path):
    result = run(tmp_path, "1 / 0")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert f"error: ZeroDivisionError: division by zero; the traceback is in {tmp_path}/demo.log" in result.stderr
    assert "Traceback" in (tmp_path / "demo.log").read_text()


def test_without_log_dir_libraries_write_to_the_terminal(tmp_path):
    result = run(tmp_path, "pass", log=False)
    assert result.stdout == "library output\n" and "library warning" in result.stderr
