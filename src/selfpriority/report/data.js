"use strict";
// The prompts packed into this page: an index that is read once, and blocks that are read when a prompt is opened.
// Texts only ever become text nodes; no string is ever parsed as markup.

const KEPT_BLOCKS = 16;

const unpack = async (element) => {
  const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
};

const make = (tag, className, ...children) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
};

const inWords = (name) => name.replaceAll("_", " ");

const shownScore = (score, digits = 2) => (score === null || score === undefined ? "–" : score.toFixed(digits));

// Bodies of prompts by number, unpacked block by block.
const bodiesOf = (starts) => {
  const elements = [...document.querySelectorAll("script.prompts-block")];
  const blocks = new Map();
  const block = (place) => {
    if (!blocks.has(place)) {
      if (blocks.size >= KEPT_BLOCKS) blocks.delete(blocks.keys().next().value);
      blocks.set(place, unpack(elements[place]));
    }
    return blocks.get(place);
  };
  const placeOf = (number) => {
    let place = starts.length - 1;
    while (starts[place] > number) place -= 1;
    return place;
  };
  return {
    one: async (number) => {
      const place = placeOf(number);
      return (await block(place))[number - starts[place]];
    },
    each: async (visit, progress) => {
      for (let place = 0; place < starts.length; place += 1) {
        const bodies = await unpack(elements[place]);
        bodies.forEach((body, offset) => visit(starts[place] + offset, body));
        progress((place + 1) / starts.length);
      }
    },
  };
};
