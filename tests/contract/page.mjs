// Runs the script of the page to try it, as a browser would, against the gateway that serves it: node page.mjs GATEWAY TOKEN. The page's elements
// are stood in for by the little of them that the script uses.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Script, createContext } from "node:vm";

const [gateway, token] = process.argv.slice(2);
const DEADLINE_MS = 10_000;

class Element {
  value = "";
  textContent = "";
  children = [];
  listeners = {};
  prepend(child) {
    this.children.unshift(child);
  }
  querySelector() {
    return (this.button ??= new Element());
  }
  addEventListener(type, listener) {
    this.listeners[type] = listener;
  }
}

const elements = {};
const document = {
  createElement: () => new Element(),
  getElementById: (id) => (elements[id] ??= new Element()),
};
const at = document.getElementById;
const submit = (form) => at(form).listeners.submit({ preventDefault() {} });
const said = () => at("said").children.map((line) => line.textContent);

async function until(what, holds) {
  const deadline = Date.now() + DEADLINE_MS;
  while (!holds()) {
    assert.ok(Date.now() < deadline, `${what}: ${said().join("\n")}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const page = await fetch(`${gateway}/try`);
const html = await page.text();
const script = html.split("<script>")[1].split("</script>")[0];
const hash = createHash("sha256").update(script).digest("base64");
assert.ok(page.headers.get("content-security-policy").includes(`script-src 'sha256-${hash}'`));
const compiled = new Script(script, { filename: "try.js" });
if (typeof WebSocket === "undefined") {
  console.log("the page's script can be read; this node has no WebSocket to run it with");
  process.exit(0);
}

const location = { href: `${gateway}/try` };
const relative = (path, options) => fetch(new URL(path, location.href), options);
const context = { document, location, fetch: relative, WebSocket, URL, crypto, console };
compiled.runInContext(createContext(context));
at("token").value = `ALICE=${token}`;
at("members").value = "bob, ";
at("text").value = "hello from the page";
await submit("connect");
await until("a welcome", () => at("state").textContent === "Connected as alice.");
assert.equal(at("send").button.disabled, false);
await submit("begin");
assert.match(at("conversation").value, /^[0-9a-f-]{36}$/);
await submit("send");
const heard = (type) => said().some((line) => line.startsWith("{") && JSON.parse(line).type === type);
await until("the message's acknowledgement and event", () => heard("ack") && heard("message.created"));
at("frame").value = '{"type":"ping","id":"1"}';
await submit("other");
await until("a pong", () => heard("pong"));
assert.ok(!said().join().includes(token), "the token is shown");
at("token").value = "wrong";
await submit("connect");
await until("the end", () => at("state").textContent.startsWith("Not connected: 4401"));
console.log("the page to try it connects, begins a conversation, sends and hears");
process.exit(0);
