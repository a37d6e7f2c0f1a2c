"""The workbench in tests: opened, read and clicked without a browser."""

from oelm_lib.workbench import Workbench

MIMETYPE = "application/vnd.plotly.v1+json"


def open_board(outputs):
    board = Workbench(str(outputs))
    board.refresh()  # figures are drawn at the second look
    return board


def curve_names(output):
    traces = output.outputs[0]["data"][MIMETYPE]["data"]
    return {trace["name"] for trace in traces if "seed" in trace["name"]}


def click(board, label):
    rows = [box.children for box in board.runs.children if hasattr(box, "children")]
    buttons = [made for made in sum(rows, ()) if getattr(made, "description", "") == label]
    buttons[0].click()
