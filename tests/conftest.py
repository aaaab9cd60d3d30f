"""For all tests: what a shell that starts them in the background does to signals is undone.

Such a shell lets them ignore SIGINT, and `nohup` SIGHUP; `berth`, which they start, would inherit that and rightly go
on ignoring them.
"""

from __future__ import annotations

import signal

for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
