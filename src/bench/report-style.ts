/** How the page looks: light, dark and on paper. Colours have at least 4.5:1 contrast to their ground. */
export const STYLE = `
:root { color-scheme: light dark;
  --ground: #ffffff; --text: #1c2126; --soft: #57606a; --rule: #d5dae0; --grid: #e8ebef; --panel: #f6f7f9;
  --c0: #0b5cad; --c1: #b04a00; --c2: #5b6470; --c3: #0b6e62; --c4: #7a3ea8; --c5: #a61e4d; --c6: #6b5d00; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #14171a; --text: #e4e7ea; --soft: #9fa8b2; --rule: #3a4149; --grid: #272d33; --panel: #1c2024;
  --c0: #6cb2f5; --c1: #f0a15e; --c2: #a9b2bd; --c3: #52cdb9; --c4: #c69be8; --c5: #f783ac; --c6: #d6c34a; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 80px }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 12px; font-weight: 650; letter-spacing: -0.01em }
h2 { font-size: 21px; margin: 52px 0 10px; font-weight: 650; padding-top: 14px; border-top: 1px solid var(--rule) }
h3 { font-size: 16px; margin: 26px 0 6px; font-weight: 600 }
p, ul { max-width: 46em; margin: 0 0 14px }
.lead { font-size: 17.5px; padding-left: 1.1em } .lead li { margin: 2px 0 }
.warning { border-left: 4px solid var(--c1); padding: 6px 14px; background: var(--panel) }
.soft, figcaption { color: var(--soft); font-size: 14px }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 22px 0 }
dl.facts dt { color: var(--soft) } dl.facts dd { margin: 0 }
figure { margin: 18px 0 26px } figure svg { display: block; width: 100%; height: auto }
/* On a narrow screen a chart is moved sideways rather than made too small to read. */
.wide { overflow-x: auto } .wide svg { min-width: 600px }
figcaption { max-width: 52em; margin-top: 6px }
.wide { max-width: 860px }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 8px 40px }
.charts figure { margin: 8px 0 18px; max-width: 600px }
.scroll { overflow-x: auto; margin: 12px 0 }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: 4px 14px 4px 0; text-align: left; border-bottom: 1px solid var(--grid); vertical-align: top }
th { color: var(--soft); font-weight: 600; border-bottom-color: var(--rule); vertical-align: bottom }
.right { text-align: right }
pre { background: var(--panel); padding: 12px 14px; overflow-x: auto; font-size: 13.5px; max-width: 860px }
code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--text) }
svg .label { paint-order: stroke; stroke: var(--ground); stroke-width: 3px; stroke-linejoin: round }
svg .tick { font-size: 11px; fill: var(--soft) } svg .title { fill: var(--soft) }
svg .group { font-weight: 600 }
svg .grid { stroke: var(--grid) } svg .axis { stroke: var(--soft); fill: none }
svg .reference { stroke: var(--text); stroke-dasharray: 4 3 }
svg .leader { stroke: var(--soft); stroke-width: 0.8 }
svg .line { fill: none; stroke-width: 2; stroke: currentColor } svg .dashed { stroke-dasharray: 6 4; stroke-width: 1.5 }
svg .trail { stroke-width: 1.2; stroke-opacity: 0.55 } svg .roof { stroke-width: 2.2 }
svg .mark { fill: currentColor; stroke: var(--ground); stroke-width: 1.2 }
svg .dot { fill-opacity: 0.65; stroke: none } svg .whisker { stroke: currentColor; stroke-width: 1.2; fill: none }
svg .hollow { fill: var(--ground); stroke: currentColor; stroke-width: 1.8 }
svg .bar { fill: currentColor }
svg .s0, svg .m0 { color: var(--c0) } svg .s1, svg .m1 { color: var(--c1) } svg .s2, svg .m2 { color: var(--c2) }
svg .s3, svg .m3 { color: var(--c3) } svg .s4, svg .m4 { color: var(--c4) }
svg .s5, svg .m5 { color: var(--c5) } svg .s6, svg .m6 { color: var(--c6) }
svg .label[class*=" s"], svg .label[class*=" m"] { fill: currentColor }
svg .roof-dram { color: var(--text) } svg .roof-lookup { color: var(--c3) } svg .roof-int8 { color: var(--c1) }
svg text.roof-dram { fill: var(--text) } svg text.roof-lookup { fill: var(--c3) } svg text.roof-int8 { fill: var(--c1) }
@media print { main { max-width: none; padding: 0 } body { font-size: 11pt } figure, tr { break-inside: avoid }
  h2, h3 { break-after: avoid } table { font-size: 7.5pt; white-space: normal } td, th { padding-right: 6px }
  .scroll { overflow: visible } .wide { max-width: 15.5cm } .wide svg { min-width: 0 }
  .charts { grid-template-columns: 1fr 1fr; gap: 0 24px } h2 { margin-top: 28px } :root { --ground: #fff; --text: #000; --soft: #444; --rule: #bbb; --grid: #ddd; --panel: #f4f4f4;
  --c0: #0b5cad; --c1: #b04a00; --c2: #5b6470; --c3: #0b6e62; --c4: #7a3ea8; --c5: #a61e4d; --c6: #6b5d00; } }
`
