# SPDX-License-Identifier: Apache-2.0
"""What the official SDKs ask for besides conversations."""

import base64
import io
import json

import anthropic
import cohere
import google.genai
import httpx
import openai

from callers import CallersTest
from gateway import FAMILIES
from support import CITY_SCHEMA, KEY, RED_DOT
from wire import MEDIA_TYPES, sse

PICTURE = base64.b64decode(RED_DOT)
SOUND = b"RIFF\x24\x00\x00\x00WAVEfmt \xff\xfe\x00 not really a sound"
VECTORS = [[0.25, -0.5], [1.0, 0.125]]
LISTED = {"listed-one": "openai", "listed-two": "openai", "listed-three": "anthropic", "listed-four": "full"}


def answers(value, media_type=MEDIA_TYPES["json"]):
    """A script that answers always the same."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda asked: (media_type, body)


class Operations(CallersTest):
    """What the classes here have in common."""

    def script(self, place, value, media_type=MEDIA_TYPES["json"]):
        """Answers requests for a model, or at a place (`"POST /full/v1/files"`)."""
        self.upstream.scripts[place] = answers(value, media_type)
        self.addCleanup(self.upstream.scripts.pop, place)

    @property
    def asked(self):
        """What a vendor was asked last."""
        return self.upstream.requests[-1]


class OpenAITest(Operations):
    """By `openai`, from a vendor that has it all."""

    def setUp(self):
        self.client = self.callers["openai-chat"].client

    def test_images(self):
        self.script("painter", {"created": 1, "data": [{"b64_json": RED_DOT}]})
        answer = self.client.images.generate(model="full/painter", prompt="a red dot", n=1, size="1024x1024")
        self.assertEqual(base64.b64decode(answer.data[0].b64_json), PICTURE)
        self.assertEqual((self.asked.path, self.asked.json["prompt"]), ("/full/v1/images/generations", "a red dot"))

    def test_image_edits_send_their_file_on(self):
        self.script("POST /full/v1/images/edits", {"created": 1, "data": [{"url": "https://images.example/1.png"}]})
        file = ("dot.png", io.BytesIO(PICTURE), "image/png")
        answer = self.client.images.edit(model="full/painter", image=file, prompt="make it blue")
        self.assertEqual(answer.data[0].url, "https://images.example/1.png")
        self.check_form({"model": b"painter", "prompt": b"make it blue", "image": PICTURE})

    def test_transcription_and_translation_send_their_file_on(self):
        for ask in (self.client.audio.transcriptions, self.client.audio.translations):
            operation = type(ask).__name__.lower()
            self.script(f"POST /full/v1/audio/{operation}", {"text": "Grüße"})
            answer = ask.create(model="full/listener", file=("a.wav", io.BytesIO(SOUND), "audio/wav"))
            self.assertEqual(answer.text, "Grüße")
            self.check_form({"model": b"listener", "file": SOUND})

    def test_a_streamed_transcription(self):
        events = [{"type": "transcript.text.delta", "delta": "Grü"}, {"type": "transcript.text.done", "text": "Grüße"}]
        self.script("POST /full/v1/audio/transcriptions", sse(events, named=False), MEDIA_TYPES["sse"])
        file = ("a.wav", io.BytesIO(SOUND), "audio/wav")
        with self.client.audio.transcriptions.create(model="full/listener", file=file, stream=True) as stream:
            self.assertEqual([event.type for event in stream], [event["type"] for event in events])

    def check_form(self, fields):
        """The vendor got a form with these fields, byte for byte, and with its own name of the model."""
        kind, body = self.asked.headers["content-type"], self.asked.body
        boundary = kind.partition("boundary=")[2].strip('"').encode()
        parts = [part.partition(b"\r\n\r\n") for part in body.split(b"--" + boundary)[1:-1]]
        for name, value in fields.items():
            found = [content.removesuffix(b"\r\n") for head, _, content in parts if b'name="%s"' % name.encode() in head]
            self.assertEqual(found, [value], name)

    def test_speech_is_the_vendors_bytes(self):
        self.script("speaker", SOUND, "audio/wav")
        answer = self.client.audio.speech.create(model="full/speaker", voice="alloy", input="Hello", response_format="wav")
        self.assertEqual((answer.content, answer.response.headers["content-type"]), (SOUND, "audio/wav"))
        with self.client.audio.speech.with_streaming_response.create(
            model="full/speaker", voice="alloy", input="Hello"
        ) as stream:
            self.assertEqual(b"".join(stream.iter_bytes()), SOUND)

    def test_moderations(self):
        result = {"flagged": True, "categories": {"violence": True}, "category_scores": {"violence": 0.9}}
        self.script("judge", {"id": "modr-1", "model": "judge", "results": [result]})
        answer = self.client.moderations.create(model="full/judge", input="text")
        self.assertTrue(answer.results[0].flagged and answer.results[0].categories.violence)

    def test_embeddings_of_a_vendor_that_speaks_otherwise(self):
        self.script("embedder", {"id": "e", "embeddings": {"float": VECTORS}, "texts": ["a", "b"], "meta": {
            "api_version": {"version": "2"}, "billed_units": {"input_tokens": 2}}})
        for encoding in ("float", "base64"):
            answer = self.client.embeddings.create(model="cohere/embedder", input=["a", "b"], encoding_format=encoding)
            read = [item.embedding for item in answer.data]
            if encoding == "base64":
                read = [list(memoryview(base64.b64decode(text)).cast("f")) for text in read]
            self.assertEqual((read, answer.usage.prompt_tokens), (VECTORS, 2))
            self.assertEqual(self.asked.json["texts"], ["a", "b"])

    def test_rerank(self):
        ranking = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
        self.script("ranker", {"id": "r", "results": ranking, "meta": {"billed_units": {"search_units": 1}}})
        body = {"query": "q", "documents": ["a", "b"], "top_n": 2}
        for vendor in ("full", "cohere"):
            with self.subTest(vendor=vendor):
                answer = httpx.post(
                    f"{self.gateway.url}/v1/rerank",
                    json=body | {"model": f"{vendor}/ranker"},
                    headers={"authorization": f"Bearer {KEY}"},
                )
                results = [(item["index"], item["relevance_score"]) for item in answer.json()["results"]]
                self.assertEqual(results, [(1, 0.9), (0, 0.1)])
                self.assertEqual(self.asked.json["documents"], ["a", "b"])

    def test_files_and_batches_of_a_vendor_that_is_named(self):
        vendor = {"penstock-vendor": "full"}
        file = {"id": "file-1", "object": "file", "bytes": 3, "created_at": 1, "filename": "a.jsonl", "purpose": "batch"}
        self.script("POST /full/v1/files", file | {"status": "processed"})
        self.script("GET /full/v1/files", {"object": "list", "data": [file], "has_more": False})
        self.script("GET /full/v1/files/file-1/content", b"{}\n{}\n", "application/octet-stream")
        made = self.client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch", extra_headers=vendor)
        self.assertEqual(made.id, "file-1")
        self.check_form({"purpose": b"batch", "file": b"{}\n"})
        self.assertEqual([it.id for it in self.client.files.list(extra_headers=vendor)], ["file-1"])
        self.assertEqual(self.client.files.content("file-1", extra_headers=vendor).content, b"{}\n{}\n")
        self.check_batches(vendor)

    def check_batches(self, vendor):
        """Batches of the same vendor."""
        batch = {"id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "status": "in_progress"}
        batch |= {"input_file_id": "file-1", "completion_window": "24h", "created_at": 1}
        self.script("GET /full/v1/batches", {"object": "list", "data": [batch], "has_more": False})
        self.script("POST /full/v1/batches", batch)
        self.script("POST /full/v1/batches/batch_1/cancel", batch | {"status": "cancelling"})
        made = self.client.batches.create(
            input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h", extra_headers=vendor
        )
        self.assertEqual(made.id, "batch_1")
        listed = self.client.batches.list(limit=2, extra_headers=vendor)
        self.assertEqual([it.status for it in listed], ["in_progress"])
        self.assertTrue(self.asked.path.endswith("?limit=2"), self.asked.path)
        self.assertEqual(self.client.batches.cancel("batch_1", extra_headers=vendor).status, "cancelling")
        self.assertEqual(self.asked.headers["authorization"], "Bearer replay-secret")
        self.assertNotIn("penstock-vendor", self.asked.headers)

    def test_stored_answers(self):
        self.script("GET /full/v1/responses/resp_1", {"id": "resp_1", "object": "response", "output": [], "status": "completed"})
        answer = self.client.responses.retrieve("resp_1", extra_headers={"penstock-vendor": "full"})
        self.assertEqual(answer.id, "resp_1")

    def test_completions_of_every_family(self):
        for vendor in ("openai", "anthropic"):
            with self.subTest(vendor=vendor):
                answer = self.client.completions.create(model=f"{vendor}/chat", prompt="Hello", max_tokens=20)
                self.assertIn("Grüße", answer.choices[0].text)
                chunks = self.client.completions.create(model=f"{vendor}/chat", prompt="Hello", max_tokens=20, stream=True)
                text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
                self.assertEqual(text, answer.choices[0].text)

    def test_models(self):
        listed = {model.id: model.owned_by for model in self.client.models.list()}
        self.assertEqual({name: listed.get(name) for name in LISTED}, LISTED)
        self.assertEqual(self.client.models.retrieve("listed-four").owned_by, "full")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("no-such-model")

    def test_a_model_whose_name_has_a_slash(self):
        model = self.client.models.retrieve("full/listed-four")
        self.assertEqual(model.owned_by, "full")


class AnthropicTest(Operations):
    """By `anthropic`."""

    def setUp(self):
        self.client = self.callers["anthropic-messages"].client

    def test_models(self):
        listed = {model.id for model in self.client.models.list()}
        self.assertLessEqual(set(LISTED), listed)
        self.assertEqual(self.client.models.retrieve("listed-three").id, "listed-three")
        with self.assertRaises(anthropic.NotFoundError):
            self.client.models.retrieve("no-such-model")

    def test_tokens_are_counted_by_the_vendor_or_estimated(self):
        self.script("POST /bedrock/model/counter/count-tokens", {"inputTokens": 41})
        self.script("POST /gemini/v1beta/models/counter:countTokens", {"totalTokens": 42})
        self.script("POST /anthropic/v1/messages/count_tokens", {"input_tokens": 43})
        exact = {"bedrock": 41, "gemini": 42, "anthropic": 43}
        for vendor in FAMILIES.values():
            with self.subTest(vendor=vendor):
                answer = self.client.messages.count_tokens(
                    model=f"{vendor}/counter",
                    system="Be brief.",
                    messages=[{"role": "user", "content": "How is the weather in Oslo?"}],
                    tools=[{"name": "weather", "description": "Weather", "input_schema": CITY_SCHEMA}],
                )
                if vendor in exact:
                    self.assertEqual(answer.input_tokens, exact[vendor])
                else:
                    self.assertTrue(10 < answer.input_tokens < 200, answer.input_tokens)


class GeminiTest(Operations):
    """By `google-genai`."""

    def setUp(self):
        self.client = self.callers["gemini"].client

    def test_models(self):
        listed = {model.name for model in self.client.models.list()}
        self.assertLessEqual({f"models/{name}" for name in LISTED}, listed)
        self.assertEqual(self.client.models.get(model="listed-four").name, "models/listed-four")
        with self.assertRaises(google.genai.errors.ClientError) as raised:
            self.client.models.get(model="no-such-model")
        self.assertEqual(raised.exception.code, 404)

    def test_embeddings_of_its_own_and_of_other_vendors(self):
        vectors = [{"values": vector} for vector in VECTORS]
        self.script("POST /gemini/v1beta/models/embedder:batchEmbedContents", {"embeddings": vectors})
        self.script("POST /gemini/v1beta/models/embedder:embedContent", {"embedding": vectors[0]})
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(VECTORS)]
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        self.script("POST /full/v1/embeddings", {"object": "list", "data": data, "model": "embedder", "usage": usage})
        self.script("POST /cohere/v2/embed", {"id": "e", "embeddings": {"float": VECTORS}, "texts": ["a", "b"]})
        for vendor in ("gemini", "full", "cohere"):
            with self.subTest(vendor=vendor):
                answer = self.client.models.embed_content(model=f"{vendor}/embedder", contents=["a", "b"])
                self.assertEqual([item.values for item in answer.embeddings], VECTORS)

    def test_tokens_are_counted_by_the_vendor_or_estimated(self):
        self.script("POST /gemini/v1beta/models/counter:countTokens", {"totalTokens": 42})
        self.script("POST /anthropic/v1/messages/count_tokens", {"input_tokens": 43})
        for vendor, exact in {"gemini": 42, "anthropic": 43, "openai": None, "cohere": None}.items():
            with self.subTest(vendor=vendor):
                answer = self.client.models.count_tokens(model=f"{vendor}/counter", contents="How is the weather?")
                self.assertEqual(answer.total_tokens, exact or answer.total_tokens)
                self.assertGreater(answer.total_tokens, 2)


class CohereTest(Operations):
    """By `cohere`."""

    def setUp(self):
        self.client = self.callers["cohere-v2"].client

    def test_embeddings_of_its_own_and_of_other_vendors(self):
        own = {"id": "e", "embeddings": {"float": VECTORS}, "texts": ["a", "b"], "response_type": "embeddings_by_type"}
        self.script("POST /cohere/v2/embed", own)
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(VECTORS)]
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        self.script("POST /full/v1/embeddings", {"object": "list", "data": data, "model": "embedder", "usage": usage})
        for vendor in ("cohere", "full"):
            with self.subTest(vendor=vendor):
                answer = self.client.embed(
                    model=f"{vendor}/embedder",
                    texts=["a", "b"],
                    input_type="search_document",
                    embedding_types=["float"],
                )
                self.assertEqual(answer.embeddings.float_, VECTORS)

    def test_rankings_of_its_own_and_of_other_vendors(self):
        ranking = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
        self.script("ranker", {"id": "r", "results": ranking, "meta": {"billed_units": {"search_units": 1}}})
        for vendor in ("cohere", "full"):
            with self.subTest(vendor=vendor):
                answer = self.client.rerank(model=f"{vendor}/ranker", query="q", documents=["a", "b"], top_n=2)
                read = [(item.index, item.relevance_score) for item in answer.results]
                self.assertEqual(read, [(1, 0.9), (0, 0.1)])

    def test_a_model_that_nobody_serves(self):
        with self.assertRaises(cohere.NotFoundError):
            self.client.chat(model="no-such-model", messages=[{"role": "user", "content": "a"}])
