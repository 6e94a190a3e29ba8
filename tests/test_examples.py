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
