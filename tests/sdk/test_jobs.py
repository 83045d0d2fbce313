# SPDX-License-Identifier: Apache-2.0
"""Long work, asked for by the official `openai` SDK: pictures with and without waiting, and films, against a vendor whose API
takes orders, tells how they are doing, and calls them off."""

import base64
import json
import time

import openai
from openai import OpenAI

from gateway import Gateway
from support import KEY, RED_DOT, GatewayTest

BASE = "/dashscope/api/v1"
PICTURES = f"POST {BASE}/services/aigc/text2image/image-synthesis"
FILMS = f"POST {BASE}/services/aigc/video-generation/video-synthesis"
PAINTER, DIRECTOR = "dashscope/wanx2.1-t2i-turbo", "dashscope/wan2.2-t2v-plus"
PICTURE = "https://pictures.example/1.png"
FILM = b"\x00\x00\x00\x18ftypmp42 a film"


def answer(body):
    """What the vendor answers with."""
    return "application/json", json.dumps(body).encode()


def of_task(task, state):
    """A state as one of this task."""
    return {**state, "output": {"task_id": task, **state["output"]}}


class LongWorkTest(GatewayTest):
    """A vendor with long work, and a caller."""

    def setUp(self):
        self.addCleanup(self.upstream.scripts.clear)
        self.upstream.requests.clear()
        self.client = self.client_of(self.gateway)

    def client_of(self, gateway):
        """A caller of a gateway."""
        client = OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=60)
        self.addCleanup(client.close)
        return client

    def works(self, order, task, *states):
        """The vendor takes an order, and then tells these states, the last one again and again."""
        states = [of_task(task, state) for state in states]
        self.upstream.scripts[order] = lambda _: answer({"output": {"task_id": task, "task_status": "PENDING"}, "request_id": "r"})
        told = lambda _: answer(states.pop(0) if len(states) > 1 else states[0])
        self.upstream.scripts[f"GET {BASE}/tasks/{task}"] = told
        self.upstream.scripts[f"POST {BASE}/tasks/{task}/cancel"] = lambda _: answer({"request_id": "r"})

    def asked(self, line):
        """The requests of this kind that have reached the vendor."""
        return [asked for asked in self.upstream.requests if f"{asked.method} {asked.path}" == line]

    @staticmethod
    def state(status, usage=None, **output):
        """A state of an order."""
        return {"request_id": "r", "output": {"task_status": status, **output}, "usage": usage or {}}

    def painted(self):
        """An order of two pictures, of which one could not be made."""
        results = [{"url": PICTURE}, {"code": "DataInspectionFailed", "message": "not this one"}]
        counts = {"TOTAL": 2, "SUCCEEDED": 1, "FAILED": 1}
        return self.state("SUCCEEDED", {"image_count": 1}, results=results, task_metrics=counts)

    def cancelled(self, task):
        """The vendor is told to stop, once."""
        cancel, deadline = f"POST {BASE}/tasks/{task}/cancel", time.monotonic() + 20
        while not self.asked(cancel) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(len(self.asked(cancel)), 1)

    @staticmethod
    def ended(client, job):
        """A job when it is over."""
        deadline = time.monotonic() + 60
        while job["status"] in ("queued", "running") and time.monotonic() < deadline:
            time.sleep(0.1)
            job = client.get(f"/jobs/{job['id']}", cast_to=object)
        return job


class JobTest(LongWorkTest):
    """Every promise to a caller who has long work done."""

    def test_pictures_are_waited_for(self):
        self.works(PICTURES, "t-1", self.state("PENDING"), self.state("RUNNING"), self.painted())
        made = self.client.images.generate(model=PAINTER, prompt="a lighthouse", n=2, size="1024x1024")
        self.assertEqual([picture.url for picture in made.data], [PICTURE])
        [order] = self.asked(PICTURES)
        self.assertEqual(order.headers["x-dashscope-async"], "enable")
        self.assertEqual(order.json["parameters"]["size"], "1024*1024")

    def test_work_that_failed_is_an_error_of_the_sdk(self):
        self.works(PICTURES, "t-2", self.state("FAILED", code="DataInspectionFailed", message="not allowed"))
        with self.assertRaises(openai.APIStatusError) as raised:
            self.client.images.generate(model=PAINTER, prompt="x")
        self.assertIn("not allowed", str(raised.exception))

    def test_a_caller_who_gives_up_ends_the_work(self):
        self.works(PICTURES, "t-3", self.state("RUNNING"))
        with self.assertRaises(openai.APITimeoutError):
            self.client.with_options(timeout=3).images.generate(model=PAINTER, prompt="x")
        self.cancelled("t-3")

    def test_pictures_can_be_fetched_later(self):
        self.works(PICTURES, "t-4", self.state("RUNNING"), self.painted())
        prefer = {"prefer": "respond-async", "idempotency-key": "order-1"}
        raw = self.client.images.with_raw_response
        first, again = (raw.generate(model=PAINTER, prompt="x", extra_headers=prefer) for _ in range(2))
        job = json.loads(first.content)
        self.assertEqual((first.status_code, job["id"]), (202, json.loads(again.content)["id"]))
        job = self.ended(self.client, job)
        self.assertEqual((job["status"], job["result"]["data"][0]["url"]), ("succeeded", PICTURE))
        self.assertEqual(len(self.asked(PICTURES)), 1)

    def test_films_are_made_polled_and_downloaded(self):
        url = f"{self.upstream.url}/films/1.mp4?signature=1"
        usage = {"video_duration": 5, "video_count": 1, "video_ratio": "1280*720"}
        self.works(FILMS, "t-5", self.state("PENDING"), self.state("RUNNING"), self.state("SUCCEEDED", usage, video_url=url))
        self.upstream.scripts["GET /films/1.mp4"] = lambda _: ("video/mp4", FILM)
        film = self.client.videos.create_and_poll(model=DIRECTOR, prompt="a cat walks", seconds="4", poll_interval_ms=200)
        self.assertEqual((film.status, film.progress, film.error, film.prompt), ("completed", 100, None, "a cat walks"))
        content = self.client.videos.download_content(film.id)
        self.assertEqual(content.read(), FILM)
        [fetched] = self.asked("GET /films/1.mp4?signature=1")
        self.assertNotIn("authorization", fetched.headers)
        self.assertIn(film.id, [listed.id for listed in self.client.videos.list()])
        self.assertTrue(self.client.videos.delete(film.id).deleted)
        with self.assertRaises(openai.NotFoundError):
            self.client.videos.retrieve(film.id)

    def test_a_film_can_begin_with_a_picture(self):
        order = FILMS
        self.works(order, "t-6", self.state("FAILED", code="InvalidParameter", message="too red"))
        picture = ("red.png", base64.b64decode(RED_DOT), "image/png")
        film = self.client.videos.create(model="dashscope/wan2.2-i2v-plus", prompt="it moves", input_reference=picture)
        self.assertEqual((film.object, film.status), ("video", "queued"))
        film = self.client.videos.poll(film.id, poll_interval_ms=200)
        self.assertEqual((film.status, film.error.message), ("failed", "too red"))
        [sent] = self.asked(order)
        self.assertIn(RED_DOT, sent.body.decode())


class OwnGatewayTest(LongWorkTest):
    """What needs a gateway that can be killed, or that gives up early."""

    def start(self, more=""):
        """A gateway of this test alone."""
        gateway = Gateway(self.upstream.url, KEY, more)
        self.addCleanup(gateway.close)
        return gateway

    def test_pictures_survive_a_kill_of_the_gateway(self):
        gateway, states = self.start(), [self.state("RUNNING")]
        self.works(PICTURES, "t-7", states[0])
        self.upstream.scripts[f"GET {BASE}/tasks/t-7"] = lambda _: answer(of_task("t-7", states[-1]))
        prefer = {"prefer": "respond-async"}
        raw = self.client_of(gateway).images.with_raw_response.generate(model=PAINTER, prompt="x", extra_headers=prefer)
        job, polled = json.loads(raw.content), f"GET {BASE}/tasks/t-7"
        deadline = time.monotonic() + 20
        while not self.asked(polled) and time.monotonic() < deadline:
            time.sleep(0.05)
        gateway.kill_and_start()
        states.append(self.painted())
        job = self.ended(self.client_of(gateway), job)
        self.assertEqual(job["status"], "succeeded", job)
        self.assertEqual(job["result"]["data"][0]["url"], PICTURE)
        self.assertEqual(len(self.asked(PICTURES)), 1, "the vendor is asked for the pictures once")

    def test_work_that_takes_too_long_is_given_up_and_ended(self):
        gateway = self.start("[timeouts]\ntotal_ms = 2500\n")
        self.works(PICTURES, "t-8", self.state("RUNNING"))
        with self.assertRaises(openai.APIStatusError) as raised:
            self.client_of(gateway).images.generate(model=PAINTER, prompt="x")
        self.assertEqual(raised.exception.status_code, 504)
        self.cancelled("t-8")
