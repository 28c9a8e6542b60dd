"""The leaderboard's page, in a real browser, with a board that strangers wrote."""

import itertools
import math
import sys

import pytest
from browsing import ROWS, By, drawn, find, names, refuses_strangers, until, view, watched
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from toy_boards import HOSTILE, large_board, toy_board

from duo.leaderboard.board.board import Board
from duo.leaderboard.page import write_page

pytest.importorskip("plotly", reason="the page draws with plotly: pip install 'duo-llm[leaderboard]'")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_page(toy_board(), tmp_path_factory.mktemp("board"))


@pytest.fixture
def look(browser, written):
    """Opens the page anew at a track."""
    with watched(browser, written) as at:
        yield at


def test_the_same_board_gives_the_same_bytes(written, tmp_path):
    assert write_page(toy_board(), tmp_path / "new" / "folder").read_bytes() == written.read_bytes()


def test_a_missing_library_is_told_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ValueError, match=r"pip install 'duo-llm\[leaderboard\]'"):
        write_page(toy_board(), tmp_path)


def test_lines_stand_by_rank_with_references_and_bounds_apart(look):
    browser = look()
    assert names(browser) == ["first", "second", "costly", "fixed_best", "all big", "oracle"]
    assert names(browser, ".kind b") == ["Deployable", "References", "Bounds"]
    assert find(browser, "#count").text == "6 lines"
    first = names(browser, "#lines tbody.deployable tr:nth-child(3) > *")
    assert first[0] == "2"
    assert first[3:7] == ["3.2000[3.1900, 3.2200]", "−0.2000[−0.2100, −0.1900]", "+0.0200 *[0.0100, 0.0300]", "50.0 %"]


def test_sorting_keeps_the_kinds_apart(look):
    browser = look()
    header = find(browser, "thead .loss button")
    for order, expected in (
        ("ascending", ["first", "second", "costly", "fixed_best"]),
        ("descending", ["fixed_best", "costly", "second", "first"]),
    ):
        header.click()
        assert find(browser, "thead .loss").get_attribute("aria-sort") == order
        assert names(browser) == [*expected, "all big", "oracle"]
    assert len(browser.find_elements(By.CSS_SELECTOR, "[aria-sort]")) == 1
    ends = "const rows = document.querySelectorAll(arguments[0]); return [4, 5].map(place => rows[place].textContent)"
    keys = "rank name router fixed above gap share flops router-flops size passes time seeds status"
    for key in keys.split():
        script = f"document.querySelector('thead .{key} button').click(); {ends}"
        assert browser.execute_script(script, ROWS) == ["all big", "oracle"]


def test_filters_choose_lines_of_the_table_and_of_the_plot(look):
    browser = look()
    drawn(browser, 6)
    find(browser, "#filter").send_keys("FIRST note")
    assert names(browser) == ["first"]
    assert find(browser, "#count").text == "1 of 6 lines"
    drawn(browser, 1)
    find(browser, "#filter").clear()
    find(browser, "#single").click()
    assert names(browser) == ["first", "second", "fixed_best", "all big", "oracle"]
    find(browser, "[value=reference]").click()
    find(browser, "[value=deployable]").click()
    assert names(browser) == ["oracle"]
    drawn(browser, 1)


def test_every_line_is_a_point_at_its_difference_to_the_fixed_pattern_and_none_hides_another(look):
    browser = look()
    drawn(browser, 6)
    script = """return document.querySelector('#plot').data.flatMap(({x, y, customdata}) =>
        customdata.map(({line}, place) => [line.name, x[place], y[place]]))"""
    points = {name: (x, y) for name, x, y in browser.execute_script(script)}
    assert points["fixed_best"][1] == 0
    assert points["first"][1] == pytest.approx(-0.3)
    boxes = """return [...document.querySelectorAll('#plot .point')].map(node => node.getBoundingClientRect())
        .map(({x, y, width, height}) => [x + width / 2, y + height / 2])"""
    places = browser.execute_script(boxes)
    assert all(math.dist(a, b) > 6 for a, b in itertools.combinations(places, 2))
    labels = "return document.querySelector('#plot').layout.annotations.map(({text}) => text)"
    assert browser.execute_script(labels) == ["budget", "fixed_best"]


def test_a_line_opens_on_its_command_recipe_and_route(look):
    browser = look()
    find(browser, "#lines tbody tr:nth-child(3) .loss").click()
    assert find(browser, "#panel-title").text == "second"
    assert names(browser, "#panel pre") == ["run second 0", "router: second\n"]
    text = find(browser, "#panel").text
    assert all(part in text for part in ("a note on second", "5b187d3", "second 0", "second 1", "Route on held"))
    cells = "const c = document.querySelector('canvas'); return [...c.getContext('2d').getImageData(0, 1, 1, 2).data]"
    assert browser.execute_script(cells) == [253, 231, 37, 255, 68, 1, 84, 255]  # layer 1 all big, layer 0 never


def test_everything_can_be_done_from_the_keyboard(look):
    browser = look()
    find(browser, "thead .loss button").send_keys(Keys.SPACE, Keys.ENTER)
    assert names(browser)[0] == "fixed_best"
    for _ in range(12):
        browser.switch_to.active_element.send_keys(Keys.TAB)
    active = browser.switch_to.active_element
    assert active.text == "fixed_best"
    assert "none" not in active.value_of_css_property("outline-style")
    active.send_keys(Keys.ARROW_DOWN)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert find(browser, "#panel-title").text == "costly"
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not find(browser, "#panel").is_displayed()
    assert browser.switch_to.active_element.text == "costly"


def test_a_point_tells_its_line_and_opens_it(look):
    browser = look("strange")
    drawn(browser, 1)
    x, y = browser.execute_script(
        "const b = document.querySelector('#plot .point').getBoundingClientRect(); "
        "return [b.x + b.width / 2, b.y + b.height / 2]"
    )
    mouse = {"x": x, "y": y, "button": "left", "clickCount": 1}
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        if kind == "mousePressed":
            hint = until(
                browser, "const h = document.querySelector('#hint'); return !h.hidden && h.textContent.toWellFormed()"
            )
            assert hint.count("window.hacked = 1</script>") == 2  # name and command
            assert "loss 3.0000 [2.9900, 3.0200]to the fixed pattern −0.4000 [−0.4100, −0.3900]on 4,096 tokens" in hint
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind} | mouse)
    until(browser, "return document.querySelector('#panel').open")


def test_what_strangers_wrote_is_text_wherever_it_stands(look):
    browser = look("strange")
    drawn(browser, 1)
    find(browser, ROWS).click()
    shown = HOSTILE.replace("\ud800", "\ufffd")
    for selector in (
        ROWS,
        "#panel-title",
        ".words",
        "#left li",
        "#track option:checked",
        "#part option",
    ):
        assert names(browser, selector) == [shown], selector
    assert names(browser, "#panel .command") == [f"run {shown}"]
    assert browser.execute_script("return document.querySelectorAll('img, a[href^=javascript], iframe').length") == 0
    assert browser.execute_script("return document.scripts.length") == 3


def test_the_policy_lets_no_other_script_run_and_no_request_leave(browser, written):
    refuses_strangers(browser, written)


def test_track_and_holdout_are_in_the_address(look):
    browser = look("two", "other")
    assert Select(find(browser, "#track")).first_selected_option.text == "two"
    assert names(browser, "tbody .loss .large")[0] == "4.0000"
    Select(find(browser, "#part")).select_by_visible_text("held")
    until(browser, "return location.hash === '#track=two&part=held'")
    Select(find(browser, "#track")).select_by_visible_text("one")
    until(browser, "return location.hash === '#track=one&part=held'")
    assert names(browser, "tbody .loss .large")[0] == "3.1000"
    browser.back()
    until(browser, "return document.querySelector('#track').selectedOptions[0].text === 'two'")
    assert names(browser, "tbody .loss .large")[0] == "3.0000"


def test_a_phone_never_scrolls_the_page_sideways(browser, look):
    view(browser, 360, 740)
    look("strange")
    drawn(browser, 1)
    assert browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    assert browser.execute_script("const s = document.querySelector('#scroll'); return s.scrollWidth > s.clientWidth")
    find(browser, ROWS).click()
    width = "const p = document.querySelector('#panel'); return [p.clientWidth >= p.scrollWidth, p.offsetWidth <= 360]"
    assert browser.execute_script(width) == [True, True]


@pytest.mark.parametrize("width", [360, 1000, 1600])
def test_no_header_is_cut_off_and_what_is_not_counted_is_marked(browser, look, width):
    view(browser, width, 900)
    look()
    every = "return [...document.querySelectorAll(arguments[0])]"
    cut = f"{every}.filter(button => button.scrollWidth > button.clientWidth).map(button => button.textContent)"
    assert browser.execute_script(cut, "thead button") == []
    shown = browser.execute_script(f"{every}.map(cell => cell.textContent)", "tbody :is(.time, .size) .large")
    assert sorted({*shown}) == ["1.10", "1.10 ?", "1k"]


def test_dark_and_light_follow_the_system_plot_included(look):
    browser, seen = look(), {}
    for scheme in ("light", "dark"):
        view(browser, scheme=scheme)
        expected = {"light": "rgb(28, 33, 40)", "dark": "rgb(228, 231, 235)"}[scheme]
        ink = "const t = document.querySelector('#plot .ytitle'); return t && getComputedStyle(t).fill === arguments[0]"
        until(browser, ink, expected)
        seen[scheme] = find(browser, "body").value_of_css_property("background-color")
    assert seen == {"light": "rgba(255, 255, 255, 1)", "dark": "rgba(17, 20, 24, 1)"}


def test_an_empty_board_says_so(look, tmp_path):
    browser = look(path=write_page(Board([], [], ""), tmp_path))
    assert "There are no entries yet." in find(browser, "main").text
    assert not find(browser, "#left").is_displayed()


@pytest.mark.long
def test_of_two_thousand_lines_as_many_are_rows_as_a_reader_asked_for(look, tmp_path):
    # what answers to a click grows with the rows that are there, not with the lines
    browser = look("large", path=write_page(large_board(), tmp_path))
    drawn(browser, 2000)
    before = names(browser)
    for _ in range(2):  # as they stand, and the other way round
        find(browser, "thead .loss button").click()
        assert len(before) == len(names(browser)) == 200
    assert names(browser)[0] == "line 1999"
    find(browser, "#filter").send_keys("99")
    assert len(names(browser)) == 38
    assert find(browser, "#count").text == "38 of 2,000 lines"
    find(browser, "#filter").send_keys(Keys.CONTROL, "a", Keys.BACKSPACE)
    find(browser, ".more button").click()
    assert len(names(browser)) == 400
    assert browser.switch_to.active_element.text == "line 1799"
