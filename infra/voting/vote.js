// Answers by keyboard; without this file the page works as well.
"use strict";
document.addEventListener("keydown", (event) => {
  const form = document.querySelector("form:has(fieldset)");
  if (!form || event.ctrlKey || event.altKey || event.metaKey) return;
  const questions = [...form.querySelectorAll("fieldset")];
  if (event.key === "0") {
    for (const radio of form.querySelectorAll("input")) radio.checked = false;
  } else if (event.key === "1" || event.key === "2") {
    const open = questions.find((question) => !question.querySelector(":checked"));
    if (!open) return;
    const radio = open.querySelector(`[data-key="${event.key}"]`);
    radio.checked = true;
    radio.focus();  // so that a screen reader says what was chosen
  } else if (event.key === "Enter" && !event.target.matches("a, button")) {
    form.requestSubmit();  // refuses, and says where, while a question is open
  } else {
    return;
  }
  event.preventDefault();
});
