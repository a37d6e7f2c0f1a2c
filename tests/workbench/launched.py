"""Commands that tests start."""

import time

from oelm_lib.workbench.launches import recent_launches


def wait_for_end(outputs):
    for _ in range(600):
        if not any(launch.is_alive for launch in recent_launches(outputs)):
            return recent_launches(outputs)
        time.sleep(0.1)
    raise AssertionError("the command did not end")
