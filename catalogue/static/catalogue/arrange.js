// Buttons that move a row up or down; what is saved are the numbers, which follow.
"use strict";

const body = document.querySelector("[data-arrange] tbody");
const told = document.getElementById("arranged");

function name(row) {
    return row.querySelector(".name").textContent.trim();
}

function number() {
    [...body.rows].forEach((row, index) => {
        row.querySelector("input.place").value = index + 1;
    });
}

function move(row, step, button) {
    const other = step < 0 ? row.previousElementSibling : row.nextElementSibling;
    if (other === null) {
        return;
    }
    body.insertBefore(step < 0 ? row : other, step < 0 ? other : row);
    number();
    button.focus();
    told.textContent = `${name(row)} is now at place ${row.rowIndex}.`;
}

for (const row of body.querySelectorAll("tr:has(input.place)")) {
    for (const [step, label, sign] of [[-1, "up", "↑"], [1, "down", "↓"]]) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = sign;
        button.setAttribute("aria-label", `Move ${name(row)} ${label}`);
        button.addEventListener("click", () => move(row, step, button));
        row.querySelector(".moves").append(button);
    }
}
