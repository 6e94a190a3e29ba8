"""The examples run as a user runs them."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_medical_example_diagnoses():
    command = [sys.executable, "-W", "error", str(EXAMPLES / "medical_diagnosis.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(accuracy|recall): (\d\.\d+)$", done.stdout, re.MULTILINE))
    assert "positive class malignant" in done.stdout
    assert float(found["accuracy"]) > 0.93
    assert float(found["recall"]) > 0.85


def test_the_digits_are_read(tmp_path):
    picture = tmp_path / "filters.png"
    command = [sys.executable, "-W", "error", str(EXAMPLES / "digits_cnn.py"), "--plot", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "on 360 held-out digits: " in done.stdout
    assert float(re.search(r"^accuracy: (\d\.\d+)$", done.stdout, re.MULTILINE)[1]) >= 0.985
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_lesions_are_found_in_unseen_phantoms(tmp_path):
    picture = tmp_path / "phantoms.png"
    command = [sys.executable, "-W", "error", str(EXAMPLES / "unet_phantom.py"), "--plot", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "on 100 unseen phantoms" in done.stdout
    assert float(re.search(r"^Dice: (\d\.\d+)$", done.stdout, re.MULTILINE)[1]) >= 0.9
    assert picture.read_bytes().startswith(b"\x89PNG")
