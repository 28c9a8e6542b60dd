"""The page of one text, in a real browser, with a text that means harm."""

import numpy as np
import pytest
from browsing import By, find, names, refuses_strangers, silent, until, view
from selenium.webdriver.common.keys import Keys
from toy_boards import HOSTILE
from toy_texts import CODE, toy_reader

from duo import Budget
from duo.evaluation.passage import read_passage
from duo.report.passage import About, write_page

STRANGE = HOSTILE.replace("\ud800", "\u202e\x1b\u200b\ufffd") + "\n" + CODE
TOKENS = "#text > span"


def write(path, text, name="code.py", **changes):
    passage = read_passage(toy_reader(**changes), text, name)
    about = About(
        name=name, bytes=len(text.encode()), recipe="toy", router="by_place", backbone="0123456789abcdef",
        budget={"skip": 0, "small": 2, "big": 1}, context=16, search=None,
    )  # fmt: skip
    write_page(passage, about, np.arange(330), path)
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    strange = write(folder / "strange.html", STRANGE, name=HOSTILE)
    return {"code": write(folder / "code.html", CODE), "strange": strange}


@pytest.fixture
def look(browser, pages, request):
    """Opens the page that the test is marked with (`strange` in its name: that one)."""
    path = pages["strange" if "strange" in request.node.name else "code"]
    browser.get("about:blank")
    browser.get_log("performance")
    with silent(browser, path.name):
        browser.get(path.as_uri())
        yield browser


def token(browser, index):
    return find(browser, f"#t{index}")


def focused(browser):
    return int(browser.switch_to.active_element.get_attribute("data-at"))


def test_the_same_text_gives_the_same_bytes(pages, tmp_path):
    assert write(tmp_path / "again.html", CODE).read_bytes() == pages["code"].read_bytes()


def test_every_token_stands_in_the_page_in_order(look):
    shown = look.execute_script("return [...document.querySelectorAll(arguments[0])].map(t => t.textContent)", TOKENS)
    assert "".join(shown) == CODE
    assert token(look, 0).get_attribute("class") == "first"
    said = names(look, "#notes li")
    assert said[0].startswith("The first token has no loss")
    assert any("16 tokens at a time" in sentence for sentence in said)
    assert not any("Only the text's beginning" in sentence for sentence in said)


def test_what_a_strange_text_and_its_name_say_is_text(look):
    text = look.execute_script("return document.querySelector('#text').textContent")
    assert text == STRANGE
    assert names(look, "#name") == [HOSTILE.replace("\ud800", "\ufffd")]
    assert (
        look.execute_script("return document.querySelectorAll('img, iframe, #text b, a[href^=javascript]').length") == 0
    )
    assert look.execute_script("return document.scripts.length") == 2
    # a sign that turns the direction of writing turns its own token alone
    assert {*look.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(t => getComputedStyle(t).unicodeBidi)", TOKENS
    )} == {"isolate"}  # fmt: skip


def test_the_policy_lets_no_other_script_run_and_no_request_leave(browser, pages):
    refuses_strangers(browser, pages["code"])


def test_colours_are_switched_from_the_keyboard_without_reloading(look):
    seen = {}
    find(look, "#modes input:checked").send_keys("")  # the focus
    for _ in range(6):
        mode = find(look, "#modes input:checked").get_attribute("value")
        seen[mode] = look.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(t => t.className).join()", TOKENS
        )
        look.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert [*seen] == ["gap", "small", "big", "oracle", "router_share", "oracle_share"]
    assert len({*seen.values()}) >= 5  # both shares may be those of the budget
    assert find(look, "#modes input:checked").get_attribute("value") == "gap"
    find(look, "#modes label:last-child").click()
    assert "the same for every token, 0.33" in find(look, "#legend").text


def test_what_is_darker_loses_more(look):
    find(look, "#modes label:nth-of-type(2)").click()
    found = look.execute_script(
        """const luminance = (colour) => colour.match(/\\d+/g).slice(0, 3)
            .reduce((sum, part, place) => sum + [0.2126, 0.7152, 0.0722][place] * part, 0);
        const swatches = [...document.querySelectorAll('#legend .swatch i')].slice(1);
        return swatches.map((node) => luminance(getComputedStyle(node).backgroundColor));"""
    )
    assert found == sorted(found, reverse=True)
    assert len({*found}) == 6
    step = int(token(look, 5).get_attribute("class")[-1])
    loss = look.execute_script("return data.small[5]")
    assert step == sum(loss >= edge for edge in (0.5, 1, 2, 3, 5, 7))


def test_the_focus_goes_from_token_to_token_and_shows_their_numbers(look):
    token(look, 1).send_keys(Keys.ARROW_RIGHT)
    assert focused(look) == 2
    shown = find(look, "#details").text
    for name in ("small", "big", "router", "oracle"):
        value = look.execute_script("return data[arguments[0]][2]", name)
        assert f"{name} {value:.3f}".replace("-", "−") in shown.replace("\n", " ")
    assert "rank" in shown
    assert names(look, ".strip .counts") == ["1 big, 2 small"] * 2
    strip = find(look, ".cells").get_attribute("aria-label")
    assert strip.count("big") == 1
    look.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert focused(look) > 2
    look.switch_to.active_element.send_keys(Keys.ARROW_UP)
    assert focused(look) == 2
    look.switch_to.active_element.send_keys(Keys.HOME)
    assert "nothing predicts it" in find(look, "#details").text
    look.switch_to.active_element.send_keys(Keys.END)
    assert focused(look) == len(names(look, TOKENS)) - 1
    assert "none" not in look.switch_to.active_element.value_of_css_property("outline-style")
    look.switch_to.active_element.send_keys(Keys.TAB)  # the text is one stop of many tokens
    assert look.switch_to.active_element.tag_name == "a"


def test_the_mouse_shows_a_token_and_gives_the_focused_one_back(look):
    look.execute_script(
        """document.querySelector('#t7').dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));"""
    )
    assert "token 8" in find(look, "#details .kind").text
    look.execute_script("document.querySelector('#text').dispatchEvent(new MouseEvent('mouseleave'))")
    assert "token 2 " in find(look, "#details .kind").text


def test_the_tokens_with_most_potential_link_to_their_places(look):
    links = look.find_elements(By.CSS_SELECTOR, "#most a")
    assert len(links) == 10
    gaps = [float(text.replace("−", "-")) for text in names(look, "#most td:last-child")]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] == pytest.approx(look.execute_script("return Math.max(...data.gap)"), abs=0.006)
    links[3].click()
    wanted = int(links[3].get_attribute("href").rpartition("#t")[2])
    until(look, "return document.activeElement.dataset.at == arguments[0]", wanted)
    assert "rank 4 of" in find(look, "#details").text
    inside = "const b = document.activeElement.getBoundingClientRect(); return b.top >= 0 && b.bottom <= innerHeight"
    assert look.execute_script(inside)


def test_the_plot_follows_the_text_and_leads_into_it(look):
    points = "return document.querySelector('#plot .line.oracle').getAttribute('d').split('L').length"
    until(look, "return document.querySelector('#plot .line.oracle')")
    count = len(names(look, TOKENS)) - 1
    assert look.execute_script(points) == count
    box = find(look, "#plot").rect
    look.execute_script(
        """const [x] = arguments; document.querySelector('#plot').dispatchEvent(new MouseEvent('click', {
            clientX: x, clientY: document.querySelector('#plot').getBoundingClientRect().top + 20, bubbles: true}));""",
        box["x"] + box["width"] - 9,
    )  # fmt: skip
    assert focused(look) == count
    assert float(find(look, "#plot .mark").get_attribute("x1")) == pytest.approx(box["width"] - 9, abs=9)


def test_a_long_text_has_more_values_than_a_function_takes(look):
    assert look.execute_script("return [highest(Array(300000).fill(2), 0), lowest(Array(300000).fill(2), 9)]") == [2, 2]


@pytest.mark.parametrize("page", ["code", "strange"])
def test_a_phone_never_scrolls_sideways(look, page):
    view(look, 360, 740)
    until(look, "return document.querySelector('#plot').viewBox.baseVal.width < 360")
    assert look.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    cut = "return [...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > 361).length"
    assert look.execute_script(cut) == 0
    token(look, 29).send_keys(Keys.ARROW_RIGHT)
    assert focused(look) == 30  # and it is not behind its numbers
    covered = "return document.querySelector('#details').getBoundingClientRect().top"
    assert look.execute_script("return document.activeElement.getBoundingClientRect().bottom") <= look.execute_script(
        covered
    )


def test_dark_and_light_follow_the_system(look):
    seen = {}
    for scheme in ("light", "dark"):
        view(look, scheme=scheme)
        seen[scheme] = [find(look, part).value_of_css_property("background-color") for part in ("body", ".step6")]
    assert seen["light"][0] == "rgba(255, 255, 255, 1)"
    assert seen["dark"][0] == "rgba(17, 20, 24, 1)"
    assert seen["light"][1] != seen["dark"][1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_on_every_colour_can_be_read(look, scheme):
    view(look, scheme=scheme)
    contrast = """const channel = (part) => part <= 10.31 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4;
        const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(channel)
            .reduce((sum, part, place) => sum + [0.2126, 0.7152, 0.0722][place] * part, 0);
        return ['step1', 'step2', 'step3', 'step4', 'step5', 'step6', 'below1', 'below2'].map((name) => {
            const node = document.querySelector('#t3');
            node.className = name;
            const {color, backgroundColor} = getComputedStyle(node);
            const [low, high] = [light(color), light(backgroundColor)].sort((a, b) => a - b);
            return (high + 0.05) / (low + 0.05);
        });"""
    assert min(look.execute_script(contrast)) >= 4.5


def test_one_token_more_than_one_is_a_page(browser, tmp_path):
    path = write(tmp_path / "short.html", "ab", name="-", budget=Budget(0))
    with silent(browser, path.name):
        browser.get_log("performance")
        browser.get(path.as_uri())
        assert find(browser, "#name").text == "standard input"
        assert len(names(browser, TOKENS)) == 2
