// SPDX-License-Identifier: Apache-2.0
// Asks the gateway by the official Node SDKs. Reads questions from the standard input, one JSON object a line ({id, dialect,
// model, stream}); writes what the SDK has read of each answer, or the error that it raised. test_node.py holds it against
// what was recorded.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.PENSTOCK_NODE_MODULES}/`);
const { OpenAI } = require("openai");
const { Anthropic } = require("@anthropic-ai/sdk");
const { GoogleGenAI } = require("@google/genai");

const { PENSTOCK_URL: url, PENSTOCK_KEY: key } = process.env;
const QUESTION = "How is the weather in Oslo?";
const ABOUT = "Weather of a city";
const CITY = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const MAX_TOKENS = 4096;
const THINKING_TOKENS = 2048;

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const google = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: url, apiVersion: "v1beta" } });

const ASK = {
  "openai-chat": chat,
  "openai-responses": responses,
  "anthropic-messages": messages,
  gemini,
};

const parsed = (text) => (text?.trim() ? JSON.parse(text) : {});
const joined = (pieces) => pieces.map((piece) => piece ?? "").join("");

async function chat(model, stream) {
  const request = {
    model,
    messages: [{ role: "user", content: QUESTION }],
    tools: [{ type: "function", function: { name: "weather", description: ABOUT, parameters: CITY } }],
    reasoning_effort: "low",
    max_completion_tokens: MAX_TOKENS,
  };
  const read = { text: "", reasoning: "", calls: [], finish: null, usage: {} };
  const calls = new Map();
  const message = (piece) => {
    // Vendors of this dialect have two names for reasoning, and content may be parts.
    const parts = Array.isArray(piece.content) ? piece.content : [{ type: "text", text: piece.content }];
    read.text += joined(parts.map((part) => (part.type === "text" ? part.text : "")));
    read.reasoning += joined(parts.flatMap((part) => (part.thinking ?? []).map((thought) => thought.text)));
    read.reasoning += piece.reasoning_content || piece.reasoning || "";
    (piece.tool_calls ?? []).forEach((call, place) => {
      const at = call.index ?? place;
      const [name, text] = calls.get(at) ?? ["", ""];
      calls.set(at, [name + (call.function.name ?? ""), text + (call.function.arguments ?? "")]);
    });
  };
  const usage = (stated) => {
    if (!stated) return;
    read.usage = { input: stated.prompt_tokens, output: stated.completion_tokens };
    if (stated.prompt_tokens_details) read.usage.cached = stated.prompt_tokens_details.cached_tokens;
    if (stated.completion_tokens_details) read.usage.reasoning = stated.completion_tokens_details.reasoning_tokens;
  };
  if (stream) {
    const chunks = await openai.chat.completions.create({ ...request, stream, stream_options: { include_usage: true } });
    for await (const chunk of chunks) {
      usage(chunk.usage);
      for (const choice of (chunk.choices ?? []).filter((choice) => choice.index === 0)) {
        message(choice.delta);
        read.finish = choice.finish_reason ?? read.finish;
      }
    }
  } else {
    const answer = await openai.chat.completions.create(request);
    message(answer.choices[0].message);
    read.finish = answer.choices[0].finish_reason;
    usage(answer.usage);
  }
  read.calls = [...calls.values()].map(([name, text]) => [name, parsed(text)]);
  return read;
}

async function responses(model, stream) {
  const request = {
    model,
    input: QUESTION,
    tools: [{ type: "function", name: "weather", description: ABOUT, parameters: CITY, strict: false }],
    reasoning: { effort: "low", summary: "auto" },
    max_output_tokens: MAX_TOKENS,
  };
  let answer;
  let items = [];
  if (stream) {
    for await (const event of await openai.responses.create({ ...request, stream })) {
      if (event.type === "response.output_item.done") items.push(event.item);
      if (/^response\.(completed|incomplete|failed)$/.test(event.type)) answer = event.response;
    }
  } else {
    answer = await openai.responses.create(request);
    items = answer.output;
  }
  if (answer.error) throw new Error(answer.error.message);
  const of = (type) => items.filter((item) => item.type === type);
  const usage = answer.usage ?? {};
  return {
    text: joined(of("message").flatMap((item) => item.content.map((part) => (part.type === "output_text" ? part.text : "")))),
    reasoning: joined(of("reasoning").flatMap((item) => [...(item.summary ?? []), ...(item.content ?? [])].map((it) => it.text))),
    calls: of("function_call").map((item) => [item.name, parsed(item.arguments)]),
    finish: answer.incomplete_details ? `${answer.status}/${answer.incomplete_details.reason}` : answer.status,
    usage: {
      input: usage.input_tokens,
      output: usage.output_tokens,
      cached: usage.input_tokens_details?.cached_tokens,
      reasoning: usage.output_tokens_details?.reasoning_tokens,
    },
  };
}

async function messages(model, stream) {
  const request = {
    model,
    messages: [{ role: "user", content: QUESTION }],
    tools: [{ name: "weather", description: ABOUT, input_schema: CITY }],
    thinking: { type: "enabled", budget_tokens: THINKING_TOKENS },
    max_tokens: MAX_TOKENS,
  };
  const answer = stream
    ? await anthropic.messages.stream(request).finalMessage()
    : await anthropic.messages.create(request);
  const of = (type) => answer.content.filter((block) => block.type === type);
  const cached = answer.usage.cache_read_input_tokens ?? 0;
  return {
    text: joined(of("text").map((block) => block.text)),
    reasoning: joined(of("thinking").map((block) => block.thinking)),
    calls: of("tool_use").map((block) => [block.name, block.input]),
    finish: answer.stop_reason,
    usage: {
      input: answer.usage.input_tokens + cached + (answer.usage.cache_creation_input_tokens ?? 0),
      output: answer.usage.output_tokens,
      cached,
    },
  };
}

async function gemini(model, stream) {
  const request = {
    model,
    contents: QUESTION,
    config: {
      tools: [{ functionDeclarations: [{ name: "weather", description: ABOUT, parametersJsonSchema: CITY }] }],
      thinkingConfig: { includeThoughts: true, thinkingBudget: THINKING_TOKENS },
      maxOutputTokens: MAX_TOKENS,
    },
  };
  const chunks = stream
    ? await google.models.generateContentStream(request)
    : [await google.models.generateContent(request)];
  const read = { text: "", reasoning: "", calls: [], finish: null, usage: {} };
  for await (const chunk of chunks) {
    if (chunk.usageMetadata) {
      const count = (name) => chunk.usageMetadata[name] ?? 0;
      read.usage = {
        input: count("promptTokenCount") + count("toolUsePromptTokenCount"),
        output: count("candidatesTokenCount") + count("thoughtsTokenCount"),
        cached: count("cachedContentTokenCount"),
        reasoning: count("thoughtsTokenCount"),
      };
    }
    const candidate = chunk.candidates?.[0];
    for (const part of candidate?.content?.parts ?? []) {
      if (part.functionCall) read.calls.push([part.functionCall.name, part.functionCall.args ?? {}]);
      else read[part.thought ? "reasoning" : "text"] += part.text ?? "";
    }
    read.finish = candidate?.finishReason ?? read.finish;
  }
  return read;
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, dialect, model, stream } = JSON.parse(line);
  let said;
  try {
    said = { id, read: await ASK[dialect](model, stream) };
  } catch (error) {
    said = { id, error: `${error.constructor.name}: ${error.message}`, status: error.status };
  }
  console.log(JSON.stringify(said));
}
