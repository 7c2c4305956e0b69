// What the gateway answers, and lists of it that come in pages.

/** The answer, or a `problem` in words. */
export async function load(path) {
  const answer = await fetch(path).catch(() => null);
  if (answer === null) return { problem: "The gateway does not answer." };
  const body = await answer.json();
  return answer.ok ? body : { problem: body.detail ?? body.title };
}

/** The first page with the `entries` of so many pages, and the `next` of the last of these; or a `problem`. */
export async function loadPages(path, entries, count) {
  let whole = await load(path);
  for (let pages = 1; pages < count && whole.next; pages++) {
    const more = await load(`${path}?cursor=${encodeURIComponent(whole.next)}`);
    if (more.problem) return more;
    whole = { ...whole, [entries]: [...whole[entries], ...more[entries]], next: more.next };
  }
  return whole;
}
