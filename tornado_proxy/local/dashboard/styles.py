"""The layout and colours of the dashboard.  Colours carry no meaning of their own: marks do."""

from __future__ import annotations

STYLES = """
#title, .title { height: 1; background: $primary; color: $text; text-style: bold; }
#totals { height: 2; text-wrap: nowrap; }
#spend { height: 1; text-wrap: nowrap; text-overflow: ellipsis; color: $text-muted; }
#chart { height: 2; max-width: 120; }
#running { height: 5; }
#requests { width: 1fr; }
#empty { height: auto; color: $text-muted; }
#side { display: none; width: 60; margin-left: 1; }
#models, #problems { height: 1fr; }
#filter { display: none; height: 1; border: none; padding: 0; }
#filter:focus { border: none; }
#question { width: 60; height: auto; padding: 1 2; border: thick $warning; background: $surface; }
FittedTable { scrollbar-gutter: stable; scrollbar-size-vertical: 1; overflow-x: hidden; }
FittedTable:nocolor > .datatable--cursor { text-style: reverse; }
#title:nocolor, .title:nocolor { text-style: reverse; }
#recent { height: 1fr; }
#recent.-empty { height: 1; }
QuitQuestion { align: center middle; }
View { background: $background; }
View FittedTable { height: 1fr; }
.-wide #side { display: block; }
.-wide #running { height: 9; }
.-wide #chart { height: 4; }
"""
