/**
 * The kit: a second bundle that brings only its own code. The loader hands it the first one, whose parts it is built from, so
 * that there is one store, one card of requests and one way to make an element.
 */
import { approvals } from "./approvals";
import { browser } from "./browser";
import { chat } from "./chat";
import type { Part, Parts } from "./frame";
import { meter } from "./meter";
import { review } from "./review";

export default ({ parts }: { parts: Parts }): Readonly<Record<string, () => Part>> => ({
  Chat: chat(parts),
  Approvals: approvals(parts),
  UsageMeter: meter(parts),
  SessionBrowser: browser(parts),
  Review: review(parts),
});
