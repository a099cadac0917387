/**
 * A request on the card: an approval of a call, of a sub-agent's call, a question, or a write that is in doubt; each with
 * its own buttons.
 *
 * A person decides about exactly what stands here, so the arguments are whole, and the answer carries the digest of what
 * was shown; the kernel checks it again. Nothing here takes the focus by itself, least of all Approve.
 */
import { computed, signal } from "@preact/signals-core";
import { type Child, h, icon, reveal, type Scope } from "../dom";
import { visible } from "../urls";
import type { AnswerRequest, CallState, RequestState } from "../wire";
import { type Arguments, argumentsView, changesOf, editableAll, isInexact, problemOf } from "./args";
import { type Choices, choicesView } from "./choices";
import type { Context } from "./context";
import { codeField, Form } from "./form";
import { CHECK, CROSS, PENCIL, QUESTION, SHIELD, WARNING } from "./icons";
import { isSame, problemWith, type Schema } from "./schema";
import { Steady } from "./steady";
import { answerText, roughly } from "./words";

type Decision = AnswerRequest["decision"];
type Scopes = AnswerRequest["scope"];
type Mode = "look" | "edit" | "deny" | "result";

interface Action {
  readonly button: HTMLButtonElement;
  readonly label: HTMLElement;
  readonly text: string;
  readonly decision: Decision | null;
}

/** Close to the end it is worth a word that nobody will be asked any more. */
const LAST_CALL_S = 10 * 60;

export class RequestView {
  readonly element: HTMLElement;
  readonly #mode = signal<Mode>("look");
  readonly #steady: Steady;
  readonly #acts = h("div", { class: "tc-acts" });
  readonly #form = h("div");
  readonly #reason: HTMLTextAreaElement;
  readonly #editor: HTMLTextAreaElement;
  readonly #editorBox: HTMLElement;
  /** The fields that write what stands in the editor; null while that is edited itself. */
  #fields: Form | null = null;
  readonly #isAsJson = signal(false);
  readonly #parseProblem = signal<string | null>(null);
  readonly #scope: HTMLSelectElement;
  /** Of a question; an approval has none. */
  readonly #choices: Choices | null;
  /** What would run: the call itself, or the sub-agent's that it runs. */
  readonly #name: string;
  readonly #values: Arguments;
  #actions: Action[] = [];

  constructor(
    readonly context: Context,
    readonly call: CallState,
    readonly request: RequestState,
    readonly scope: Scope,
  ) {
    const titleId = context.id(`ask-${request.request_id}`);
    const isQuestion = request.kind === "question";
    const isInner = request.name !== "";
    const isInDoubt = request.kind === "in_doubt";
    this.#name = request.name || call.name;
    this.#values = (isInner ? request.arguments : call.arguments) ?? {};
    this.#scope = h("select", { "aria-label": "For how long the decision holds" });
    const all = `All calls of ${visible(this.#name)}`;
    for (const [value, text] of [
      ["once", "This call only"],
      ["session", `${all}, this session`],
      ["always", `${all}, always`],
    ])
      this.#scope.append(h("option", { value }, text));
    this.#choices = isQuestion ? choicesView(context, request, titleId, scope) : null;
    const title = h("p", { class: "tc-title", id: titleId });
    if (isQuestion) title.append(reveal(request.question));
    else
      title.append(
        isInDoubt ? "In doubt: " : "Allow ",
        h("code", null, reveal(this.#name)),
        isInDoubt ? "" : "?",
      );
    const words = h("div", null, title);
    const sub = (...text: Child[]): void => words.append(h("p", { class: "tc-sub" }, ...text));
    if (request.description !== "") sub(reveal(request.description));
    const right = isQuestion ? "" : rights(isInner ? "write" : call.effect);
    if (isQuestion || isInner) sub("Asked by ", h("code", null, reveal(call.name)), `. ${right}`);
    else sub(right);
    const picture = icon(isQuestion ? QUESTION : isInDoubt ? WARNING : SHIELD);
    const head = h("div", { class: "tc-ask-head" }, h("span", { class: "tc-icon" }, picture), words);
    this.#reason = h("textarea", {
      class: "tc-field",
      rows: 2,
      id: context.id(`reason-${request.request_id}`),
    });
    [this.#editorBox, this.#editor] = codeField(context.id(`edit-${request.request_id}`), "", "json");
    this.#editorBox.classList.add("tc-tall");
    const pad = h(
      "div",
      { class: "tc-pad" },
      this.#preview(),
      this.#choices?.element ?? this.#arguments(),
      this.#form,
      this.#problem(),
      this.#fate(),
    );
    this.element = h(
      "div",
      { class: "tc-request", role: "group", "aria-labelledby": titleId, tabindex: -1 },
      ...[head, pad, this.#acts],
    );
    this.#steady = new Steady(scope, this.#acts);
    scope.effect(() => this.#show(this.#mode.value));
    scope.effect(() => this.#update());
    this.#keys();
  }

  #preview(): HTMLElement | null {
    const { preview } = this.request;
    if (preview === null || preview === "") return null;
    const label = `What ${visible(this.#name)} would do`;
    return h(
      "pre",
      { class: "tc-out tc-preview", tabindex: 0, role: "group", "aria-label": label },
      reveal(preview),
    );
  }

  #arguments(): HTMLElement {
    const { call } = this;
    const view = h("div", null, argumentsView(this.#values));
    if (isInexact(this.#values) && this.request.name === "") {
      const raw = h("pre", {
        class: "tc-out",
        tabindex: 0,
        role: "group",
        "aria-label": "Arguments as written",
      });
      raw.append(reveal(call.arguments_text));
      view.append(
        h("div", { class: "tc-label" }, "As the model wrote them: the page rounds large numbers"),
        raw,
      );
    }
    this.scope.effect(() => {
      view.hidden = this.#mode.value === "edit";
    });
    return view;
  }

  /** Why an answer was not taken. */
  #problem(): HTMLElement {
    const hint = h("p", { class: "tc-hint tc-bad" });
    this.scope.effect(() => {
      const problem = this.context.link.problems.value.get(this.request.request_id);
      hint.hidden = problem === undefined;
      hint.replaceChildren(icon(CROSS), h("span", null, "Not taken: ", reveal(problem ?? "")));
    });
    return hint;
  }

  readonly #isExpired = computed(() => {
    const { expires_at } = this.request;
    return expires_at !== null && this.context.clock.value >= expires_at;
  });

  /** What becomes of the request when nobody answers, or why it cannot be answered here. */
  #fate(): HTMLElement {
    const { link, clock } = this.context;
    const note = h("p", { class: "tc-hint" });
    const text = computed(() => {
      const state = link.state.value;
      if (state === "restored") return "Expired: no kernel waits for this answer any more.";
      if (state === "disconnected") return "Expired: the kernel was restarted.";
      if (this.#isExpired.value) return "Expired: nobody answered in time.";
      if (state === "connecting") return "Connecting to the kernel…";
      const left = (this.request.expires_at ?? Number.POSITIVE_INFINITY) - clock.value;
      if (left >= LAST_CALL_S) return "";
      const { default_result } = this.request;
      if (default_result === null) return `Expires in ${roughly(left)}.`;
      return `Expires in ${roughly(left)}; the answer is then “${visible(answerText(this.request, default_result))}”.`;
    });
    this.scope.effect(() => {
      note.textContent = text.value;
      note.hidden = text.value === "";
    });
    return note;
  }

  #show(mode: Mode): void {
    const { context, request } = this;
    const cancel = this.#action("Cancel", "tc-quiet", null, () => this.#leave());
    this.#form.replaceChildren();
    this.#form.hidden = mode === "look";
    if (mode === "look" && this.#choices !== null) {
      this.#actions = [
        this.#action("Answer", "tc-primary", "result", () => this.#answer("result")),
        this.#action("Decline", "tc-outline", "deny", () => this.#answer("deny")),
      ];
    } else if (mode === "look" && request.kind === "in_doubt") {
      this.#actions = [
        this.#action("Run again", "tc-outline", "approve", () => this.#answer("approve")),
        this.#action("It happened…", "tc-outline", "result", () => this.#enter("result")),
        this.#action("Skip", "tc-outline", "deny", () => this.#answer("deny")),
      ];
    } else if (mode === "look") {
      this.#actions = [
        this.#action("Approve", "tc-primary", "approve", () => this.#answer("approve")),
        this.#action("Deny…", "tc-outline", "deny", () => this.#enter("deny")),
      ];
      // An edit must not round numbers in passing, and of a sub-agent's call there is no other text.
      if (request.name === "" || !isInexact(this.#values))
        this.#actions.push(
          this.#action("Edit arguments", "tc-quiet", "edit", () => this.#enter("edit"), PENCIL),
        );
    } else if (mode !== "edit") {
      const text =
        mode === "deny" ? "Reason for the model (optional)" : "Its result, for the model (optional)";
      this.#form.append(h("label", { class: "tc-label", for: this.#reason.id }, text), this.#reason);
      const word = mode === "deny" ? "Deny" : "It happened";
      this.#actions = [this.#action(word, "tc-primary", mode, () => this.#answer(mode)), cancel];
    } else {
      const hint = h("p", { class: "tc-hint", id: context.id(`hint-${request.request_id}`) });
      this.#editor.setAttribute("aria-describedby", hint.id);
      this.#form.append(...this.#inputs(), hint, this.#changes);
      this.#hint = hint;
      this.#check();
      this.#actions = [
        this.#action("Run edited call", "tc-primary", "edit", () => this.#answer("edit")),
        cancel,
      ];
    }
    this.#acts.replaceChildren(...this.#actions.map((action) => action.button));
    // Other arguments are for this call alone.
    if (request.kind === "approval" && mode !== "edit")
      this.#acts.append(h("span", { class: "tc-grow" }), this.#scope);
    this.#steady.reset();
  }

  /** Fields where there is a schema for them, else JSON; and a way from one to the other. */
  #inputs(): Node[] {
    const schema = this.context.link.schemas.get(this.request.request_id);
    const label = h("label", { class: "tc-label", for: this.#editor.id }, "Arguments (JSON)");
    this.#fields = null;
    if (schema === undefined || isInexact(this.#values)) return [label, this.#editorBox];
    const isAsJson = this.#isAsJson.value;
    const turn = h(
      "button",
      { type: "button", class: "tc-small tc-link" },
      isAsJson ? "As fields" : "As JSON",
    );
    turn.addEventListener("click", () => {
      // Fields cannot show what is no JSON object, and would round what is no number of the page's.
      if (isAsJson && (problemOf(this.#editor.value) !== null || isInexact(JSON.parse(this.#editor.value))))
        return;
      this.#isAsJson.value = !isAsJson;
      (this.#fields ?? this.#editor).focus();
    });
    const head = h(
      "div",
      { class: "tc-label" },
      isAsJson ? label : "Arguments",
      h("span", { class: "tc-grow" }),
      turn,
    );
    if (isAsJson) return [head, this.#editorBox];
    const id = this.context.id(`form-${this.request.request_id}`);
    const values = JSON.parse(this.#editor.value) as Arguments;
    const fields = new Form(id, schema, this.#values, values, () => {
      this.#setText(fields.text);
    });
    this.#fields = fields;
    return [head, fields.element];
  }

  #setText(text: string): void {
    this.#editor.value = text;
    this.#editor.dispatchEvent(new Event("input"));
  }

  #hint: HTMLElement | null = null;
  readonly #changes = h("pre", {
    class: "tc-out tc-diff",
    role: "group",
    tabindex: 0,
    "aria-label": "What is changed",
  });

  #check(): void {
    const schema = this.context.link.schemas.get(this.request.request_id);
    const problem =
      this.#fields?.problem ?? problemOf(this.#editor.value) ?? (schema ? this.#misfit(schema) : null);
    this.#parseProblem.value = problem;
    this.#editor.setAttribute("aria-invalid", String(problem !== null));
    if (this.#hint === null) return;
    this.#hint.className = problem === null ? "tc-hint tc-good" : "tc-hint tc-bad";
    // A field says itself what does not fit.
    this.#hint.hidden = this.#fields?.problem != null;
    const changes = problem === null ? changesOf(this.#values, this.#editor.value) : [];
    this.#changes.replaceChildren(
      ...changes.map(([sign, text]) =>
        h("div", { class: sign === "+" ? "tc-add" : "tc-del" }, reveal(`${sign} ${text}`)),
      ),
    );
    this.#changes.hidden = changes.length === 0;
    const valid =
      changes.length > 0 ? "Valid. The model is told what you changed." : "Valid. Nothing is changed yet.";
    const text = problem ?? valid;
    this.#hint.replaceChildren(icon(problem === null ? CHECK : CROSS), h("span", null, visible(text)));
  }

  /** What is changed has to fit; what the kernel has taken already need not be judged here. */
  #misfit(schema: Schema): string | null {
    const values = JSON.parse(this.#editor.value) as Arguments;
    return isSame(values, this.#values) ? null : problemWith(schema, values, schema);
  }

  #action(
    text: string,
    className: string,
    decision: Decision | null,
    act: () => void,
    picture?: readonly string[],
  ): Action {
    const label = h("span", null, text);
    const button = h("button", { type: "button", class: className }, picture && icon(picture), label);
    button.addEventListener("click", (event) => {
      // Cancel decides nothing; all else waits until the buttons have stood still.
      if (decision !== null && (this.#isBlocked(decision) || !this.#steady.allows(event))) return;
      act();
    });
    return { button, label, text, decision };
  }

  #isBlocked(decision: Decision): boolean {
    const { link } = this.context;
    if (link.state.value !== "live" || this.#isExpired.value || link.sent.value.has(this.request.request_id))
      return true;
    if (decision === "result" && this.#choices !== null) return this.#choices.value.value === null;
    return decision === "edit" && this.#mode.value === "edit" && this.#parseProblem.value !== null;
  }

  #update(): void {
    const sent = this.context.link.sent.value.get(this.request.request_id);
    const { state } = this.context.link;
    const isOver = state.value === "restored" || state.value === "disconnected" || this.#isExpired.value;
    const isReady = this.#steady.ready.value;
    this.#mode.value;
    this.#acts.hidden = isOver;
    for (const { button, label, text, decision } of this.#actions) {
      const isOff = decision === null ? sent !== undefined : !isReady || this.#isBlocked(decision);
      button.setAttribute("aria-disabled", String(isOff));
      label.textContent = sent !== undefined && sent.decision === decision ? "Sent…" : text;
    }
  }

  #answer(decision: Decision): void {
    const text = this.#reason.value.trim();
    this.context.link.answer({
      request_id: this.request.request_id,
      digest: this.request.digest,
      decision,
      arguments: decision === "edit" ? this.#editor.value : null,
      reason: decision === "deny" && this.request.kind === "approval" ? text : "",
      result:
        decision !== "result" ? null : this.#choices === null ? text || "done" : this.#choices.value.value,
      scope: decision === "approve" || decision === "deny" ? (this.#scope.value as Scopes) : "once",
    });
  }

  /** Decides an approval that nobody is busy with; what is being edited or denied with a reason is left to that. */
  decide(decision: "approve" | "deny"): void {
    if (this.request.kind !== "approval" || this.#mode.value !== "look" || this.#isBlocked(decision)) return;
    this.#scope.value = "once";
    this.#answer(decision);
  }

  #enter(mode: "edit" | "deny" | "result"): void {
    if (mode === "edit" && this.#editor.value === "") {
      this.#setText(editableAll(this.#values, this.call.arguments_text));
    }
    this.#mode.value = mode;
    // The person has asked for the field.
    if (mode === "edit" && this.#fields !== null) this.#fields.focus();
    else (mode === "edit" ? this.#editor : this.#reason).focus({ preventScroll: true });
  }

  #leave(): void {
    if (this.context.link.sent.value.has(this.request.request_id)) return;
    const from = this.#mode.value;
    this.#mode.value = "look";
    this.#actions.find((action) => action.decision === from)?.button.focus({ preventScroll: true });
  }

  #keys(): void {
    this.scope.listen(this.#editor, "input", () => this.#check());
    this.scope.listen(this.element, "keydown", (event) => {
      const isLooking = this.#mode.value === "look";
      if (!(event instanceof KeyboardEvent) || event.isComposing || (isLooking && this.#choices === null))
        return;
      if (event.key === "Escape" && !isLooking) {
        event.stopPropagation();
        this.#leave();
      } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.#actions[0]?.button.click();
      }
    });
  }
}

function rights(effect: CallState["effect"]): string {
  return effect === "read" ? "Only reads, with your rights." : "Runs with your rights, without a sandbox.";
}
