// Keeps the page of the move up to date: asks how things stand, and exchanges the parts
// that are no longer as they were, except where somebody is reading with the keyboard.
"use strict";

const root = document.querySelector("[data-now]");
const freshness = document.getElementById("freshness");
const said = document.getElementById("said");
let every = Number(root.dataset.every);
let timer = null;

function exchange(name, html) {
    const place = root.querySelector(`[data-part="${name}"]`);
    if (place.dataset.html === html || place.contains(document.activeElement)) {
        return;
    }
    const open = [...place.querySelectorAll("details")].map((each) => each.open);
    place.dataset.html = html;
    place.innerHTML = html;
    place.querySelectorAll("details").forEach((each, index) => {
        each.open = open[index] ?? each.open;
    });
}

function tell(text, isStale) {
    freshness.textContent = text;
    freshness.classList.toggle("stale", isStale);
}

async function ask() {
    try {
        const answer = await fetch(root.dataset.now, {redirect: "manual"});
        if (answer.type === "opaqueredirect" || answer.status === 403) {
            tell("You are no longer signed in: load this page again.", true);
            return;
        }
        if (!answer.ok) {
            throw new Error(String(answer.status));
        }
        const found = await answer.json();
        for (const [name, html] of Object.entries(found.parts)) {
            exchange(name, html);
        }
        if (said.textContent !== found.said) {
            said.textContent = found.said;
        }
        every = found.every;
        tell(`As of ${new Date().toISOString().slice(11, 19)} UTC`, false);
    } catch {
        tell("It could not be asked just now, and will be again in a moment.", true);
    }
    timer = setTimeout(ask, every);
}

timer = setTimeout(ask, every);
// Nobody looks: nothing is asked.  Somebody looks again: at once.
document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) {
        ask();
    }
});
