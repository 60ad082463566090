/** The dialog that starts a conversation: with one person by name, or a group with members. */

import { byId } from "./dom.js";

export interface Wanted {
  type: "direct" | "group";
  name?: string;
  memberIds: string[];
}

/** Opens it at the button; `start` makes the conversation, and what it throws is shown. */
export function newConversationDialog(start: (wanted: Wanted) => Promise<void>): void {
  const dialog = byId<HTMLDialogElement>("new-dialog");
  const form = byId<HTMLFormElement>("new-form");
  const members = byId<HTMLInputElement>("new-members");
  const name = byId<HTMLInputElement>("new-name");
  const error = byId("new-error");

  const chosen = () => new FormData(form).get("type") as "direct" | "group";
  const adapt = () => {
    const isGroup = chosen() === "group";
    byId("new-name-part").hidden = !isGroup;
    byId("new-members-label").textContent = isGroup ? "Members" : "Who";
    byId("new-hint").textContent = isGroup ? "Names with commas between them. You are one of them anyway." : "";
  };

  byId("new-chat").addEventListener("click", () => {
    form.reset();
    error.textContent = "";
    adapt();
    dialog.showModal();
    members.focus();
  });
  byId("new-cancel").addEventListener("click", () => dialog.close());
  form.addEventListener("change", adapt);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const type = chosen();
    const names = type === "group" ? members.value.split(",") : [members.value];
    const memberIds = names.map((one) => one.trim()).filter((one) => one !== "");
    if (memberIds.length === 0) return;
    const submit = form.querySelector<HTMLButtonElement>("[type=submit]");
    if (submit) submit.disabled = true;
    try {
      await start({ type, memberIds, ...(type === "group" ? { name: name.value.trim() } : {}) });
      dialog.close();
    } catch (problem) {
      error.textContent = problem instanceof Error ? problem.message : String(problem);
    } finally {
      if (submit) submit.disabled = false;
    }
  });
}
