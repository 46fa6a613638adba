// The page: sources of a server, a new invocation, and its life as it happens.
import { timestampDate } from "@bufbuild/protobuf/wkt";

import { connect, follow, hasEnded, problemOf, type Clients } from "./client";
import type { Invocation, Statistics } from "./generated/chromasync/v1/invocation_pb";
import {
  WatchInvocationResponse_Kind as Kind,
  type WatchInvocationResponse,
} from "./generated/chromasync/v1/invocation_service_pb";
import type { Source } from "./generated/chromasync/v1/source_pb";
import { phaseName, settled, stateName } from "./words";

let clients: Clients | undefined;
/** Ends the watch that is shown, when another one takes its place. */
let watching: AbortController | undefined;

onSubmit("server", async (form) => {
  element("sources").hidden = true;
  watching?.abort();
  element("invocation").hidden = true;
  clients = connect(text(form, "address"), text(form, "token"));
  showSources(await allSources(clients));
});

onSubmit("create", async (form) => {
  if (clients === undefined) return;
  const branch = text(form, "branch");
  const invocation = await clients.invocations.createInvocation({
    sourceId: text(form, "source"),
    targetCollectionName: text(form, "collection"),
    input: {
      case: "github",
      value: branch === "" ? {} : { reference: { case: "branch", value: branch } },
    },
  });
  watching?.abort();
  watching = new AbortController();
  void showLife(clients, invocation.id, watching.signal);
});

async function allSources({ sources }: Clients): Promise<Source[]> {
  const found: Source[] = [];
  let pageToken = "";
  do {
    const page = await sources.listSources({ pageToken });
    found.push(...page.sources);
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return found;
}

function showSources(sources: Source[]): void {
  const rows = sources.map((source, index) => {
    const choice = document.createElement("input");
    Object.assign(choice, { type: "radio", name: "source", value: source.id, checked: index === 0 });
    choice.setAttribute("form", "create");
    const repository = source.settings.case === "github" ? source.settings.value.repository : "";
    choice.setAttribute("aria-label", repository);
    const created = source.createTime ? timestampDate(source.createTime).toLocaleDateString() : "";
    const row = document.createElement("tr");
    row.append(cell(choice));
    row.append(...[repository, source.databaseName, source.embedding?.dense?.model ?? "", created].map(cell));
    return row;
  });
  element("source-rows").replaceChildren(...rows);
  element("no-sources").hidden = sources.length > 0;
  element("create").hidden = sources.length === 0;
  element("sources").hidden = false;
}

async function showLife(from: Clients, id: string, signal: AbortSignal): Promise<void> {
  element("history").replaceChildren();
  try {
    for await (const message of follow(from, id, signal)) showMessage(message);
  } catch (error) {
    if (!signal.aborted) showProblem(error);
  }
}

function showMessage({ kind, revision, invocation, time }: WatchInvocationResponse): void {
  if (invocation === undefined) return;
  showInvocation(invocation);
  if (kind !== Kind.SNAPSHOT && kind !== Kind.STATE_CHANGED) return;
  const moment = document.createElement("time");
  moment.textContent = time ? ` at ${timestampDate(time).toLocaleTimeString()}` : "";
  const change = document.createElement("li");
  change.dataset["revision"] = String(revision);
  change.append(stateName(invocation.state), moment);
  element("history").append(change);
}

function showInvocation(invocation: Invocation): void {
  const state = element("state");
  state.textContent = stateName(invocation.state);
  state.dataset["state"] = state.textContent;
  element("phase").textContent = phaseOf(invocation);
  element("invocation-id").textContent = `${invocation.id} → ${invocation.collectionName}`;
  const failure = element("failure");
  failure.hidden = invocation.failure === undefined;
  failure.textContent = `${invocation.failure?.reason}: ${invocation.failure?.message}`;
  showCounts(invocation.statistics, hasEnded(invocation.state));
  element("invocation").hidden = false;
}

function phaseOf({ phase, wait, attempt }: Invocation): string {
  const words = [phaseName(phase)];
  if (attempt > 1) words.push(`attempt ${attempt}`);
  if (wait) words.push(wait.cause);
  return words.join(", ");
}

function showCounts(counts: Statistics | undefined, ended: boolean): void {
  const numbers: [string, bigint][] = [
    ["Discovered", counts?.documentsDiscovered ?? 0n],
    ["Indexed", counts?.documentsIndexed ?? 0n],
    ["Unchanged", counts?.documentsUnchanged ?? 0n],
    ["Skipped", counts?.documentsSkipped ?? 0n],
    ["Failed", counts?.documentsFailed ?? 0n],
    ["Chunks", counts?.chunksIndexed ?? 0n],
  ];
  const entries = numbers.map(([name, count]) => {
    const entry = document.createElement("div");
    const term = document.createElement("dt");
    const value = document.createElement("dd");
    term.textContent = name;
    value.textContent = count.toLocaleString();
    value.dataset["count"] = name.toLowerCase();
    entry.append(term, value);
    return entry;
  });
  element("counts").replaceChildren(...entries);
  const progress = element("progress") as HTMLProgressElement;
  progress.max = Math.max(1, Number(counts?.documentsDiscovered ?? 0n));
  progress.value = ended ? progress.max : Number(counts ? settled(counts) : 0n);
}

function showProblem(error: unknown): void {
  const { code, message, reason, violations } = problemOf(error);
  element("problem-reason").textContent = reason || "No answer";
  element("problem-code").textContent = code;
  // Where fields are named, the message repeats what is said of them.
  element("problem-message").textContent = violations.length === 0 ? message : "";
  const fields = violations.map(({ field, description }) => {
    const name = document.createElement("code");
    name.textContent = field;
    const item = document.createElement("li");
    item.append(name, ` ${description}`);
    return item;
  });
  element("problem-violations").replaceChildren(...fields);
  element("problem").hidden = false;
}

/** Has `act` answer the form `id`: its button waits meanwhile, and an error is shown. */
function onSubmit(id: string, act: (form: FormData) => Promise<void>): void {
  const form = element(id) as HTMLFormElement;
  const button = form.querySelector("button") as HTMLButtonElement;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    element("problem").hidden = true;
    button.disabled = true;
    act(new FormData(form))
      .catch(showProblem)
      .finally(() => (button.disabled = false));
  });
}

function cell(content: Node | string): HTMLTableCellElement {
  const made = document.createElement("td");
  made.append(content);
  return made;
}

function text(form: FormData, name: string): string {
  return String(form.get(name) ?? "").trim();
}

function element(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no element ${id}`);
  return found;
}
