"""Demo: a page on this machine that shows what the model extracts from a pasted article.

    uv run tools/demo.py hawks                                            # the merged model
    uv run tools/demo.py hawks --adapter outputs/hawks/phase1 --port 8000 # phase 1 alone, on another port

Nothing that is pasted is kept, and the page asks no other machine for anything. Ctrl+C ends it.
"""

import errno
import os
import re
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import jinja2
import typer
from markupsafe import Markup

from recipekit import answer_view
from recipekit.console import main, show
from recipekit.errors import UserError
from recipekit.gold import GoldFile
from recipekit.inputs import Article
from recipekit.kinds import need_extraction
from recipekit.predictor import LocalPredictor
from recipekit.segments import read_jsonl
from recipekit.task import Task, load_task

Extract = Callable[[str], dict[str, Any]]  # article -> row of a predictor
PORTS = range(7860, 7960)
LONGEST = 20_000  # characters; a slip of the clipboard would keep the model busy for hours
LARGEST, SLOWEST = 2**20, 60  # bytes of a request, and seconds for it to arrive
FONTS = ["Hiragino Sans", "Noto Sans CJK JP", "Noto Sans JP", "Yu Gothic UI", "Meiryo", "sans-serif"]
OUTSIDE = re.compile(r'<(?:link|meta)\b[^>]*"https?:[^>]*>|<script\b[^>]*"https?:[^>]*></script>')
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
CTRL_ENTER = """<script>document.addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing)
    document.querySelector("#extract").click();
});</script>"""
CSS = """
.gradio-container { max-width: 60rem !important; margin: 0 auto !important; }
#head h1 { margin: 0 0 .1em; }
:is(#head, #answer) .html-container { padding: 0 !important; }
#extract { background: #1d4ed8; color: #fff; }
#json .cm-line, #json .cm-line span { color: var(--body-text-color) !important; }
@media (max-width: 600px) { .gradio-container main { padding: .75rem !important; } }
"""


def examples(task: Task) -> list[str]:
    """Return articles of the bundled, invented test set: three with something to extract, then one without.

    A task without bundled samples has none.
    """
    folder = task.sample_dir
    paths = [folder / task.spec["data"]["test"][which] for which in ("input", "gold")]
    if not all(path.is_file() for path in paths):
        return []
    negative = {row.id: row.is_negative() for row in GoldFile(task, paths[1])}
    bodies: dict[bool, list[str]] = {True: [], False: []}
    for _, row in read_jsonl(paths[0]):
        bodies[not negative[row["id"]]].append(row["body"])
    return bodies[True][:3] + bodies[False][:1]


def answer(task: Task, extract: Extract, article: str) -> tuple[str, str]:
    """Return the HTML and the JSON that the page shows for a pasted article."""
    if not task.clean(article):
        return notice("記事を貼り付けてください。", "Please paste an article."), ""
    if len(article) > LONGEST:
        found = f"{len(article):,}"
        return notice(
            f"記事は{LONGEST:,}文字までです（{found}文字ありました）。",
            f"An article may have up to {LONGEST:,} characters; this one has {found}.",
        ), ""
    try:
        row = extract(article)
    except UserError as error:
        return notice("この記事は処理できませんでした。", str(error)), ""
    return answer_view.answer_html(task, article, row), answer_view.answer_text(row)


def notice(japanese: str, english: str) -> str:
    """Return a line for the person at the page, as HTML."""
    text = Markup('<p class="notice warning">{} <span class="english" lang="en">{}</span></p>')
    return Markup('<div class="answer">{}</div>').format(text.format(japanese, english))


def build(task: Task, extract: Extract) -> Any:
    """Lay out the page, a `gradio.Blocks`; one article is read at a time."""
    import gradio as gr

    def run(article: str | None) -> tuple[str, str, Any]:
        view, code = answer(task, extract, article or "")
        return view, code, gr.Accordion(visible=bool(code))

    with gr.Blocks(title=task.title, analytics_enabled=False) as page:
        text = Markup('<h1>{}</h1><p>{} <span lang="en">{}</span></p>')
        asked = "記事を貼り付けて「抽出する」を押してください。", "Paste an article and press the button."
        gr.HTML(text.format(task.title, *asked), elem_id="head")
        article = gr.Textbox(label="記事 / Article", lines=8, max_lines=20, elem_id="article")
        with gr.Row():
            clear = gr.Button("消す / Clear", scale=1, min_width=100)
            button = gr.Button("抽出する / Extract（Ctrl+Enter）", variant="primary", scale=3, elem_id="extract")
        place = gr.Column()
        view = gr.HTML(elem_id="answer")
        with gr.Accordion("JSON", visible=False) as box:
            code = gr.Code(language="json", interactive=False, show_label=False, elem_id="json")
        shown = [view, code, box]
        if bodies := examples(task):
            labels = [task.clean(body)[:20] + "…" for body in bodies]
            with place:
                gr.Examples(
                    [[body] for body in bodies], article, shown, run, run_on_click=True, cache_examples=False,
                    example_labels=labels, label="例（架空の記事） / Invented examples", api_visibility="private",
                )  # fmt: skip
        button.click(run, article, shown, api_visibility="private")
        gone = ("", "", "", gr.Accordion(visible=False))
        clear.click(lambda: gone, None, [article, *shown], queue=False, api_visibility="private")
    return page.queue(default_concurrency_limit=1, api_open=False)


def prepare_page(script: str) -> None:
    """Take all addresses of other machines out of gradio's page, have the browser refuse any other, add keys."""
    from gradio.routes import templates

    environment = templates.env
    assert environment.loader
    source = OUTSIDE.sub("", environment.loader.get_source(environment, "frontend/index.html")[0])
    head = f'<head><meta http-equiv="Content-Security-Policy" content="{POLICY}">{script}'
    source = source.replace("<head>", head, 1).replace('lang="en"', 'lang="ja"', 1)
    inside = jinja2.DictLoader({"frontend/index.html": source})
    environment.loader = jinja2.ChoiceLoader([inside, environment.loader])


def free_port(host: str, port: int | None) -> int:
    """Return the port asked for or, where none was, the first free one from 7860 on.

    Raises:
        UserError: The port is taken, or the host is no address of this machine.
    """
    for candidate in [port] if port else PORTS:
        try:
            socket.create_server((host, candidate)).close()
            return candidate
        except OSError as error:
            problem = f"{host}:{candidate}: {error.strerror}"
            if error.errno != errno.EADDRINUSE:
                break
    raise UserError(f"{problem}; give another --port, or for --host an address of this machine such as 127.0.0.1")


def guarded(host: str, names: Collection[str]) -> dict[str, Any]:
    """Return what has gradio's app refuse pages of other sites, files and whatever no article needs."""
    from starlette.middleware import Middleware

    from recipekit.guard import Guard

    return {"middleware": [Middleware(Guard, host=host, names=names, size=LARGEST, seconds=SLOWEST)]}


def serve(task: Task, extract: Extract, host: str, port: int, names: Collection[str] = ()) -> None:
    """Show the page until Ctrl+C."""
    css = CSS + Path(answer_view.__file__).with_suffix(".css").read_text(encoding="utf-8")
    launch(lambda: build(task, extract), host, port, names, css, CTRL_ENTER, "demo")


def launch(
    make: Callable[[], Any], host: str, port: int, names: Collection[str], css: str, script: str, tool: str
) -> None:
    """Show a page of gradio's until Ctrl+C.

    Args:
        make: Lays out the page, a `gradio.Blocks`.
        host: Address to listen on.
        port: A free one.
        names: Other names that the page is reached by.
        css: The page's.
        script: HTML with the script that reads keys.
        tool: The command's name.
    """
    import gradio as gr

    # gradio asks its own server whether it is up, which a proxy for the network would answer wrongly.
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), host, "localhost", "127.0.0.1"]))
    prepare_page(script)
    page = make()
    page.launch(
        server_name=host, server_port=port, share=False, ssr_mode=False, inbrowser=False, quiet=True,
        prevent_thread_lock=True, footer_links=[], enable_monitoring=False, app_kwargs=guarded(host, names), css=css,
        theme=gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=["Noto Sans Mono CJK JP", "monospace"]),
    )  # fmt: skip
    show(f"{tool}: http://{host}:{port}  (Ctrl+C ends it)")
    if host != "127.0.0.1":
        show(f"{tool}: whoever reaches this address can use it, and nothing on the way is encrypted", style="yellow")
    page.block_thread()


def command(
    task: Annotated[str, typer.Argument(help="A recipe: a folder under recipes/ with a task.yml.")],
    model: Annotated[Path | None, typer.Option(help="A model's folder.  [default: outputs/TASK/merged]")] = None,
    adapter: Annotated[Path | None, typer.Option(help="A LoRA adapter's folder, on its base or --model.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: the first free one from 7860]")] = None,
    name: Annotated[list[str], typer.Option(help="Another name that the page is reached by; may be repeated.")] = [],  # noqa: B006
) -> None:
    """Show a page that extracts from a pasted article."""
    it = load_task(task)
    others = "chat.py talks with a chat, serve.py estimates a regression's numbers, rank.py ranks responses"
    need_extraction(it, "demo", f"in tools/, {others}")
    port = free_port(host, port)
    predictor = LocalPredictor.load(it, model, adapter, batch_size=8)
    serve(it, lambda body: next(predictor.predict([Article("demo", body)])), host, port, name)


if __name__ == "__main__":
    main(command)
