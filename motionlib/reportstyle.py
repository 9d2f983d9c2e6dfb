"""Nothing goes in; the report's style sheet comes out: dark on light, also on paper and phones."""

from __future__ import annotations

STYLE = """
:root{--ink:#1b2127;--soft:#4c5661;--line:#d5d8dc;--ground:#fdfdfb;--wash:#f3f4f1;
--accent:#1d4e79;--ours:#eef4f9}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--ground);color:var(--ink);
font:1.0625rem/1.6 Charter,"Iowan Old Style","Source Serif 4",Georgia,serif}
a{color:var(--accent);text-underline-offset:.15em}
a:focus-visible,.scroll:focus-visible,summary:focus-visible{outline:3px solid #b45309;
outline-offset:2px}
.skip{position:absolute;left:-999rem}.skip:focus{left:1rem;top:1rem;background:#fff;padding:.5rem}
header,main,footer{max-width:70rem;margin:0 auto;padding:0 1.5rem}
header{padding-top:2.5rem;border-bottom:3px solid var(--ink);padding-bottom:1.25rem}
h1,h2,h3,h4,nav,table,summary,.kicker,dl.headline,figcaption,.prompt{
font-family:"Source Sans 3","Helvetica Neue",Helvetica,Arial,sans-serif}
h1{font-size:2.1rem;line-height:1.2;margin:.2rem 0 .6rem;letter-spacing:-.01em}
h2{font-size:1.45rem;margin:2.8rem 0 .8rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1.12rem;margin:2rem 0 .5rem}
p,ul,ol,blockquote{max-width:44rem}
.kicker{color:var(--soft);font-size:.95rem;margin:0}
.note{background:var(--wash);border-left:4px solid var(--accent);padding:.7rem 1rem;max-width:none}
nav ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;margin:.8rem 0 0;
max-width:none}
dl.headline{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:1rem;
margin:1.5rem 0}
dl.headline div{background:var(--wash);padding:.8rem 1rem}
dl.headline dt{color:var(--soft);font-size:.9rem;line-height:1.35}
dl.headline dd{margin:.2rem 0 0;font-size:1.45rem;font-weight:600;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:1rem 0 .4rem}
table{border-collapse:collapse;font-size:.92rem;line-height:1.35;font-variant-numeric:tabular-nums;
border-top:2px solid var(--ink);border-bottom:2px solid var(--ink);min-width:20rem}
caption{text-align:left;padding:0 0 .5rem;max-width:60rem;font-size:.98rem}
th,td{padding:.36rem .7rem;text-align:left;vertical-align:top;border:0}
thead th{border-bottom:1px solid var(--ink);vertical-align:bottom;font-weight:600}
thead th.group{text-align:center;border-bottom:1px solid var(--line)}
tbody tr+tr th,tbody tr+tr td{border-top:1px solid var(--line)}
tbody th{font-weight:400}
td.number{text-align:right;white-space:nowrap}
td.long{min-width:18rem}
td.ours{background:var(--ours);font-weight:600}
.none{color:#5f6872}
figure{margin:1.6rem 0}
figure img{max-width:100%;height:auto;border:1px solid var(--line);background:#fff}
figcaption{font-size:.95rem;color:var(--soft);max-width:60rem;margin-top:.4rem}
details{margin:.8rem 0}summary{cursor:pointer;font-weight:600}
.more{font-size:.92rem;margin:.2rem 0 1.6rem;color:var(--soft)}
footer{margin-top:4rem;padding-top:1rem;padding-bottom:3rem;border-top:1px solid var(--line);
color:var(--soft);font-size:.95rem}
blockquote{margin:1rem 0;padding:.1rem 1rem;border-left:4px solid #8a9099;background:var(--wash)}
code,pre{font-family:"JetBrains Mono",Consolas,"DejaVu Sans Mono",Menlo,monospace;font-size:.86em}
.highlight,.output_text pre{background:var(--wash);padding:.7rem 1rem;overflow-x:auto;
margin:.6rem 0}
.highlight pre,.output_text pre{margin:0;line-height:1.45}
.output_text pre{background:none;padding-left:1rem;border-left:3px solid var(--line)}
.output_stderr pre{border-left-color:#b45309}
.output_html,.output_png,.output_svg{overflow-x:auto;margin:.6rem 0}
.output_png img,.output_svg img{max-width:100%;height:auto;background:#fff}
img.math{vertical-align:middle}
.cell{margin:.8rem 0}.prompt{display:none}
.pager{display:flex;justify-content:space-between;gap:1rem;flex-wrap:wrap;margin:2.5rem 0}
.highlight .c,.highlight .c1,.highlight .cm{color:#55606b;font-style:italic}
.highlight .k,.highlight .kn,.highlight .kc,.highlight .ow{color:#7a1f5c;font-weight:600}
.highlight .s,.highlight .s1,.highlight .s2,.highlight .sa,.highlight .si{color:#1a5c2e}
.highlight .mi,.highlight .mf,.highlight .mb{color:#8a3b00}
.highlight .nb,.highlight .nf,.highlight .nc,.highlight .nn{color:#1d4e79}
@media (max-width:40rem){body{font-size:1rem}header,main,footer{padding-left:1rem;
padding-right:1rem}h1{font-size:1.6rem}}
@media print{body{font-size:10pt;background:#fff;color:#000}nav,.skip,.pager,.more a{display:none}
header,main,footer{max-width:none;padding:0}.scroll{overflow:visible}
tr,figure,dl.headline div,.highlight{break-inside:avoid}h2,h3,caption{break-after:avoid}
thead{display:table-header-group}td.ours{background:none}table{font-size:8pt}
details::details-content{content-visibility:visible;block-size:auto}}
"""


def page(title: str, body: str) -> str:
    """Wrap a body in a page that loads nothing from anywhere."""
    return (
        '<!DOCTYPE html>\n<html lang="en-GB">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#main">Skip to the content</a>\n{body}\n</body>\n</html>\n'
    )
