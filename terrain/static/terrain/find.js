// What else is known of a row, beneath it, when asked for.  Without this the link opens the
// record's page, which shows the same.
"use strict";

for (const link of document.querySelectorAll("a[data-beside]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "beside";
    button.textContent = "Old beside new";
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-label", `Old beside new: ${link.textContent.replace("Open", "").trim()}`);
    button.addEventListener("click", () => toggle(button, link));
    link.before(button, " ");
}

async function toggle(button, link) {
    const row = button.closest("tr");
    const isOpen = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!isOpen));
    if (isOpen) {
        row.nextElementSibling.remove();
        return;
    }
    const cell = document.createElement("td");
    cell.colSpan = row.cells.length;
    cell.textContent = "…";
    row.after(document.createElement("tr"));
    row.nextElementSibling.append(cell);
    try {
        const answer = await fetch(link.dataset.beside);
        if (!answer.ok || answer.redirected) {
            throw new Error(String(answer.status));
        }
        cell.innerHTML = await answer.text();
    } catch {
        cell.textContent = "It could not be fetched just now; open the row instead.";
    }
}
