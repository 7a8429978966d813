"""The demo's widgets, driven through a kernel as a page does: what is pressed, typed or uploaded changes the answer."""

import io
import os
from pathlib import Path
from queue import Empty

import nbformat
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = 3  # picture with mask, word attention, coparsed cell


class Demo:
    """A kernel in which the notebook was executed as in Jupyter, and what a page would send it."""

    def __init__(self, kernel, client):
        self.kernel, self.client, self.ids, self.outputs = kernel, client, {}, []
        notebook = nbformat.read(ROOT / "notebooks" / "10_demo.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                self.shown(client.execute(cell.source))
        self.ids = {
            name: self.value(f"{name}.model_id").strip("'") for name in ("number", "upload", "words", "button", "shown")
        }

    def value(self, expression):
        """What Python in the kernel says of an expression."""
        number = self.client.execute("", user_expressions={"it": expression}, silent=True)
        while (reply := self.client.get_shell_msg(timeout=600))["parent_header"]["msg_id"] != number:
            pass
        return reply["content"]["user_expressions"]["it"]["data"]["text/plain"]

    def send(self, widget, content, buffers=()):
        message = self.client.session.msg("comm_msg", {"comm_id": self.ids[widget], "data": content})
        message["buffers"] = list(buffers)
        self.client.session.send(self.client.shell_channel.socket, message, buffers=list(buffers))
        return self.shown(message["header"]["msg_id"])

    def shown(self, number):
        """The text and the pictures on the page when the kernel has done with a message."""
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=600)
            except Empty as error:
                raise AssertionError("the kernel does not answer") from error
            if message["parent_header"].get("msg_id") != number:
                continue
            kind, content = message["msg_type"], message["content"]
            assert kind != "error", "\n".join(content["traceback"])
            if kind == "comm_msg" and content["comm_id"] == self.ids.get("shown"):
                self.outputs = content["data"].get("state", {}).get("outputs", self.outputs)
            if kind == "status" and content["execution_state"] == "idle":
                break
        text = "".join(one["text"] for one in self.outputs if one["output_type"] == "stream")
        return text, [one["data"]["image/png"] for one in self.outputs if one["output_type"] == "display_data"]

    def choose(self, number):
        self.send("number", {"method": "update", "state": {"value": number}})

    def type(self, sentence):
        self.send("words", {"method": "update", "state": {"value": sentence}})

    def upload(self, name, content):
        about = {"name": name, "type": "image/jpeg", "size": len(content), "last_modified": 0}
        state = {"value": [about], "error": ""}
        self.send("upload", {"method": "update", "state": state, "buffer_paths": [["value", 0, "content"]]}, [content])

    def press(self):
        return self.send("button", {"method": "custom", "content": {"event": "click"}})


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    env = os.environ | {
        "JPY_SESSION_NAME": "10_demo.ipynb",
        "REFSTUDY_DATA": str(tmp_path_factory.mktemp("data")),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    kernel, client = start_new_kernel(startup_timeout=300, cwd=ROOT, env=env)
    try:
        yield Demo(kernel, client)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def photo(colour, size=(90, 60)):
    memory = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), colour, np.uint8)).save(memory, "JPEG")
    return memory.getvalue()


def test_scene_sentence_and_photo_change_what_is_shown(demo):
    demo.choose(2)
    demo.choose(1)  # a scene, whatever was uploaded before
    demo.type("the car on the right")
    text, first = demo.press()
    assert len(first) == PICTURES and "gates of Eq. (9)" in text
    assert demo.press()[1] == first
    demo.type("the car on the left")
    _, second = demo.press()
    assert len(second) == PICTURES and not set(first) & set(second)
    demo.choose(3)
    _, third = demo.press()
    assert len(third) == PICTURES and not set(second) & set(third)
    demo.upload("mine.jpg", photo((200, 40, 40)))
    _, fourth = demo.press()
    assert len(fourth) == PICTURES and not set(third) & set(fourth)
    demo.choose(2)
    demo.choose(3)
    demo.type("the walrus on the left")
    text, fifth = demo.press()
    assert "does not know walrus" in text and not set(fifth) & set(fourth)
    demo.type("the car on the left")
    assert demo.press()[1] == third, "a scene chosen after an upload is what counts"


@pytest.mark.parametrize(
    "name, content, sentence, line",
    [
        ("text.jpg", b"no picture", "a dog", "text.jpg: image does not decode"),
        ("empty.jpg", b"", "a dog", "empty.jpg: image does not decode"),
        ("cut.jpg", photo((9, 9, 9), (400, 400))[:900], "a dog", "cut.jpg: image does not decode"),
        ("fine.jpg", photo((9, 9, 9)), "  ", "expression '' has no visible character"),
        ("C:\\x.jpg", b"no picture", "a dog", "C:\\x.jpg: image does not decode"),
    ],
)
def test_what_cannot_be_segmented_is_said_in_one_line(demo, name, content, sentence, line):
    demo.type(sentence)
    demo.upload(name, content)
    text, pictures = demo.press()
    assert text.startswith(line) and len(text.strip().splitlines()) == 1 and not pictures
