"""The page on which a person accepts, edits or rejects drafts, by keys or buttons."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recipekit import chat_fields, page
from recipekit.draft_session import GOALS, STALE, Notice, Session
from recipekit.errors import UserError

CSS = Path(__file__).with_name("draft_view.css").read_text(encoding="utf-8")
SOURCES = {"human": "手書き", "model": "モデル", "edited": "直した"}
NOTHING = ("", "")
DRAFTING = "下書きを作っています…", "Drafting ..."
FAILED = "下書きできませんでした。自分で書くか、もう一度試してください。"
CUT = (
    "下書きは途中で切れています。直すか、別の下書きを作ってください。",
    "The draft was cut off; edit it, or draft again.",
)
# Keys press buttons, unless text is being written; afterwards the place to write in, if there is one, takes the keys.
KEYS = """<script>
const KEYS = { a: "accept", r: "reject", d: "draft", f: "finish", u: "undo",
  ArrowLeft: "previous", ArrowRight: "next", ArrowUp: "earlier", ArrowDown: "later" };
const press = (event, id) => { event.preventDefault(); document.querySelector(`#${id}:not([disabled])`)?.click(); };
document.addEventListener("keydown", event => {
  if (event.isComposing) return;
  if (event.target.closest("textarea, input")) {
    if (event.key === "Escape") event.target.blur();
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.target.blur(); press(event, "accept"); }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key === "Process" ? event.code.replace("Key", "").toLowerCase() : event.key;
  if (key === "e") {
    event.preventDefault();
    [...document.querySelectorAll("#user textarea, #reply textarea")].find(box => box.offsetParent)?.focus();
  }
  else if (KEYS[key]) press(event, KEYS[key]);
});
</script>"""
WRITE = """() => setTimeout(() => {
  const place = document.querySelector("#scene [data-write]")?.dataset.write;
  if (place && !document.activeElement?.closest("textarea")) document.querySelector(`#${place} textarea`)?.focus();
}, 50)"""
BUTTONS = {
    "accept": "採用 / Accept (a)", "reject": "却下 / Reject (r)", "draft": "別の案 / Again (d)",
    "finish": "終える / Finish (f)", "undo": "取り消し / Undo (u)", "previous": "← 前 / Back",
    "next": "次 / Next →", "earlier": "↑ 案 / Draft", "later": "↓ 案 / Draft",
}  # fmt: skip


class View:
    """What the page shows of a session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.template = page.environment().get_template("draft_view.html.j2")

    def part(self, name: str, **values: Any) -> str:
        """Render a part of the page, a macro of the template."""
        module: Any = self.template.make_module({"task": self.session.conversations.task, "goals": GOALS, **values})
        return page.writable(str(getattr(module, name)()))

    def head(self) -> str:
        """Render the counts and their bar, on which each goal takes as much room as the last."""
        session = self.session
        bounds, share = (0, *GOALS), 1.0
        for i, (low, high) in enumerate(zip(bounds, GOALS, strict=False)):
            if session.total < high:
                share = (i + (session.total - low) / (high - low)) / len(GOALS)
                break
        values = {"total": session.total, "share": share, "before": session.before, "counts": session.counts()}
        return self.part("head", **values)

    def scene(self) -> str:
        """Render the scene and what was said."""
        session = self.session
        if not session.at:
            return self.part("scene", talk=None)
        talk, conversations = session.talk, session.conversations
        facts = chat_fields.words(conversations, talk.fields)
        state = "done" if talk.ended else "user" if talk.needs_user else "reply"
        writes = {"user": "user", "reply": None if session.drafter else "reply"}.get(state)
        return self.part(
            "scene", talk=talk, state=state, writes=writes, facts=facts, sources=SOURCES, drafts=len(talk.drafted),
            shown=min(session.shown, max(len(talk.drafted) - 1, 0)), place=session.queue.index(session.at) + 1,
            of=len(session.queue), left=len(session.open), character=conversations.task.spec["chat"]["character"],
        )  # fmt: skip

    def buttons(self) -> dict[str, bool]:
        """Tell which buttons can be pressed."""
        session = self.session
        talk = session.talk if session.at else None
        here = talk is not None and talk.ended is None
        reply = here and talk is not None and not talk.needs_user
        many = reply and talk is not None and len(talk.drafted) > 1
        return {
            "accept": here, "reject": here, "draft": bool(reply and session.drafter), "undo": True,
            "finish": bool(here and not reply and talk and talk.replies), "previous": len(session.queue) > 1,
            "next": len(session.queue) > 1, "earlier": many, "later": many,
        }  # fmt: skip

    def updates(self, notice: Notice, busy: bool = False) -> list[Any]:
        """Return what every part of the page is now, in the order of `build`."""
        import gradio as gr

        session = self.session
        talk = session.talk if session.at else None
        user = talk is not None and talk.needs_user
        reply = talk is not None and talk.ended is None and not user
        draft = session.current()
        if draft and not draft.ended and notice == NOTHING:
            notice = CUT
        context = user and talk is not None and not talk.replies and not talk.context
        context = context and "context" in session.conversations.fields
        pressed = {name: can and not busy for name, can in self.buttons().items()}
        return [
            self.head(), self.scene(), self.part("notice", japanese=notice[0], english=notice[1]), str(session.version),
            gr.Textbox(value="", visible=seen(context)), gr.Textbox(value="", visible=seen(user)),
            gr.Textbox(value=draft.text if draft else "", visible=seen(reply), interactive=not busy),
            *(gr.Button(interactive=can) for can in pressed.values()),
        ]  # fmt: skip


def seen(visible: bool) -> Any:
    """Say it as gradio does; what is "hidden" keeps its place, and comes back."""
    return True if visible else "hidden"


def action(session: Session, name: str, user: str, reply: str, context: str) -> Notice | None:
    """Do what a button says.

    Raises:
        UserError: It cannot be done.
    """
    done: dict[str, Callable[[], Notice | None]] = {
        "accept": lambda: session.accept(user, reply, context),
        "reject": session.reject,
        "finish": session.finish,
        "undo": session.undo,
        "previous": lambda: session.go(-1),
        "next": lambda: session.go(1),
        "earlier": lambda: session.choose_draft(-1),
        "later": lambda: session.choose_draft(1),
    }
    return done[name]()


def press(view: View, name: str) -> Callable[..., Iterator[list[Any]]]:
    """Return what a button does: the decision, then a draft where one is needed, the page after each."""
    session = view.session

    def run(version: str, user: str | None, reply: str | None, context: str | None) -> Iterator[list[Any]]:
        notice: Notice | None = NOTHING
        with session.lock:  # not held over a yield: another thread may go on
            stale = version != str(session.version)
            try:
                if not stale and name != "draft":
                    notice = action(session, name, user or "", reply or "", context or "")
            except UserError as error:
                notice = "保存できませんでした。", str(error)
        if stale:
            yield view.updates(STALE)
        else:
            yield from drafted(view, notice or NOTHING, name == "draft")

    return run


def drafted(view: View, notice: Notice, wanted: bool) -> Iterator[list[Any]]:
    """Show the page, and let the model draft where a draft is missing or wanted."""
    session = view.session
    if not wanted and not session.needs_draft():
        yield view.updates(notice)
        return
    yield view.updates(DRAFTING, busy=True)
    with session.lock:
        if wanted or session.needs_draft():
            notice = try_draft(session) or notice
    yield view.updates(notice)


def try_draft(session: Session) -> Notice | None:
    """Let the model draft; what it fails with is told on the page, where the person may write instead."""
    try:
        return session.draft()
    except UserError as error:
        return FAILED, str(error)
    except Exception as error:  # whatever a model may fail with
        return FAILED, f"The model failed: {type(error).__name__}"


def build(session: Session) -> Any:
    """Lay out the page, a `gradio.Blocks`; one thing is done at a time."""
    import gradio as gr

    view = View(session)
    with gr.Blocks(title=session.conversations.task.title, analytics_enabled=False) as blocks:
        head, scene = gr.HTML(elem_id="head"), gr.HTML(elem_id="scene")
        notice = gr.HTML(elem_id="notice")
        version = gr.Textbox(visible="hidden")
        context = gr.Textbox(label="場面 / Context", lines=1, elem_id="context", visible="hidden")
        user = gr.Textbox(label="相手の発言 / What the user says", lines=2, elem_id="user", visible="hidden")
        reply = gr.Textbox(label="返事 / Reply", lines=4, max_lines=12, elem_id="reply", visible="hidden")
        buttons = {}
        for row in (("accept", "reject", "draft", "finish"), ("previous", "next", "earlier", "later", "undo")):
            with gr.Row():
                for name in row:
                    size: Any = "sm" if "undo" in row else "lg"
                    buttons[name] = gr.Button(BUTTONS[name], elem_id=name, min_width=90, size=size)
        gr.HTML(view.part("keys"), elem_id="keys")
        shown = [head, scene, notice, version, context, user, reply, *(buttons[name] for name in view.buttons())]
        queue: Any = {"concurrency_id": "draft", "api_visibility": "private", "show_progress": "hidden"}
        for name, button in buttons.items():
            done = button.click(press(view, name), [version, user, reply, context], shown, **queue)
            done.then(None, None, None, js=WRITE, api_visibility="private")
        start = blocks.load(lambda: (yield from drafted(view, NOTHING, False)), None, shown, **queue)
        start.then(None, None, None, js=WRITE, api_visibility="private")
    return blocks.queue(default_concurrency_limit=1, api_open=False)
