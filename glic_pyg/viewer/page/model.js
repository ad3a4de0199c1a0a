// The model's files, which lie beside the page.

import { FileError } from "./container.js";

/** Fetch one of them. */
export async function modelFile(name) {
  const answer = await fetch(new URL(`./model/${name}`, import.meta.url));
  if (!answer.ok) throw new FileError(`Expected model/${name} beside this page (got status ${answer.status})`);
  return answer;
}
