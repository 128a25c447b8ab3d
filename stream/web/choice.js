/**
 * What the viewer wants to see of the boxes: where they are drawn, and of which classes. Kept in this
 * browser. It knows nothing of cameras or tiles.
 */

const KEY = "lookout.boxes";

/** Whether a choice of boxes has the page draw them. */
export const overlaid = (boxes) => boxes === "data" || boxes === "source";

export class Choice {
  /** @type {"drawn"|"data"|"source"|"none"} in the picture, over it, over the camera's own, or not at all */
  boxes = "drawn";
  /** @type {string[]} names of classes that are not drawn over the picture */
  hidden = [];
  #part;
  #onChange;
  #names = "";

  /** @param {HTMLElement} element  a select and a details with a fieldset @param {() => void} onChange */
  constructor(element, onChange) {
    this.#part = (selector) => element.querySelector(selector);
    this.#onChange = onChange;
    this.#recall();
    const select = this.#part("select");
    select.value = this.boxes;
    select.addEventListener("change", () => this.#change({ boxes: select.value }));
    this.#part("fieldset").addEventListener("change", () => this.#change({ hidden: this.#unchecked }));
    this.#part("details").hidden = !overlaid(this.boxes);
  }

  /** All the classes there are to choose from. */
  set names(names) {
    if (names.join() === this.#names) return;
    this.#names = names.join();
    this.#part("fieldset").replaceChildren(
      ...names.map((name) => {
        const line = document.createElement("label");
        const box = document.createElement("input");
        box.type = "checkbox";
        box.name = name;
        box.checked = !this.hidden.includes(name);
        line.append(box, name);
        return line;
      }),
    );
  }

  get #unchecked() {
    return [...this.#part("fieldset").querySelectorAll("input:not(:checked)")].map((box) => box.name);
  }

  #change(part) {
    Object.assign(this, part);
    this.#part("details").hidden = !overlaid(this.boxes);
    try {
      localStorage.setItem(KEY, JSON.stringify({ boxes: this.boxes, hidden: this.hidden }));
    } catch {
      // A browser that keeps nothing: the choice is for this visit.
    }
    this.#onChange();
  }

  #recall() {
    try {
      const { boxes, hidden } = JSON.parse(localStorage.getItem(KEY)) ?? {};
      if (["drawn", "data", "source", "none"].includes(boxes)) this.boxes = boxes;
      if (Array.isArray(hidden)) this.hidden = hidden.map(String);
    } catch {
      // Nothing kept, or not by us.
    }
  }
}
