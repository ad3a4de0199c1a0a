// ---- words: what each means, in a line ------------------------------------------------------------------

const SCORES = {
  sobel: "how strong the edges of the features are around the node (a Sobel filter, blurred)",
  local_entropy: "how much the features differ within a window around the node (the entropy of their histogram)",
  rescaling_residual: "what the features around the node lose when they are scaled down and up again",
  learned: "a number that the model has learnt to give to the node's surroundings",
  none: "the same for all nodes: this model has no score",
};
const scoreTold = SCORES[content.score] ?? `how much the features vary around the node (${content.score})`;

function stageTold(name) {
  const { side } = content.stages[name], [transform, number] = name.split(".");
  const which = number === "1" ? "first" : "second";
  const what = transform === "g_a" ? "encoder, which turns the picture into what is coded"
                                   : "decoder, which restores the picture from what was coded";
  return `${name}: the ${which} graph stage of the ${what}. A node is ${side} x ${side} pixels.`;
}

const WORDS = {
  stage: "A part of the model that works on graphs. The encoder has two, the decoder two; each makes its own.",
  ...Object.fromEntries(Object.keys(content.stages).map((name) => [`stage ${name}`, stageTold(name)])),
  scope: "Which of the stage's two graphs is shown. Its layers take turns: one works on the local graph, the next on " +
         "the global one.",
  "scope local": "The local graph: neighbours out of a window of 16 x 16 nodes around the node.",
  "scope global": "The global graph: neighbours out of a mesh of 16 x 16 nodes that spans the whole picture.",
  "scope both": "Both graphs at once.",
  by: "What the colour of a neighbour tells.",
  "by similarity": "Cosine of the angle between two nodes' features: 1 is alike, 0 is nothing in common. The most " +
                   "similar candidates are kept.",
  "by attention": "The share that a neighbour has in what the node takes in, in one layer. All shares of a node sum to 1.",
  layer: "Layers of the stage, by number. Even ones work on the local graph, odd ones on the global graph.",
  head: "Attention is computed several times in parallel, by heads. Each looks at other features.",
  picture: "What lies under the marks.",
  "picture original": "The picture that was given to the encoder.",
  "picture restored": "The picture that the decoder restores" +
                      (content.quality === null ? "." : `, at quality ${content.quality}.`),
  map: "A number of every node, as a colour over the grey picture.",
  "map none": "The picture alone.",
  "map score": `Score: ${scoreTold}. High scores get more neighbours.`,
  "map quota": `Quota: how many neighbours a node is to have. ${content.degree} times the number of nodes are shared ` +
               "out in proportion to their scores.",
  "map degree": "Degree: how many neighbours a node has kept, itself and zero nodes among them.",
  "map bits": "Bits: what the file needs for each 16 x 16 pixels, as the entropy model estimates it.",
  "least similarity": "Hide neighbours that are less similar to the node.",
  "least degree": "Cover nodes that have kept fewer neighbours.",
  node: "A square of pixels, and the features that stand for it at this stage.",
  neighbour: "A node whose features this one takes in.",
  candidate: "A node that may become a neighbour. Every node has 256 in each graph.",
  padding: "Pictures are extended to multiples of 64 pixels by repeating their edge. These nodes are not in the photo, " +
           "but the model uses them like all others.",
  "zero node": "Stands for places of the window that lie outside the picture. Its features are zero. It adds nothing, " +
               "but takes its share of the attention.",
  kept: "Neighbours that were kept: candidates above a similarity that gives about as many as the quota asks for. " +
        "Where many are alike, there are more.",
  shown: "Those of them that the similarity slider leaves.",
  "self edge": "Whether the node is its own neighbour. It is a candidate like others, and the most similar one.",
  "mean similarity": "Of the neighbours, without the node itself and zero nodes.",
  furthest: "Distance of the furthest neighbour, in pixels of the picture.",
  local: "In the local graph.",
  global: "In the global graph.",
};
WORDS.score = WORDS["map score"];
WORDS.quota = WORDS["map quota"];
WORDS.bits = WORDS["map bits"];
WORDS.similarity = WORDS["by similarity"];
WORDS.attention = WORDS["by attention"];
WORDS.degree = WORDS["map degree"];

// A word that tells what it means.
const word = (name, shown = name) => `<span data-word="${name}" tabindex="0">${shown}</span>`;

// Whoever has no mouse is told of taps and buttons.
let touch = window.matchMedia("(hover: none)").matches;
const movesTold = () => (touch
  ? "Tap the photo or the enlarged window to choose a node. Drag sideways to try others, or step with the arrows. " +
    "Tap a dotted word to read what it means."
  : "Move over the photo. A click holds the node, another lets it go; arrow keys step, with Shift by 8. P pins it " +
    "beside the next one. Dotted words tell what they mean; so do the neighbours of a held node.");
const pinTold = (pinned) => (pinned ? "unpin" : "pin to compare") + (touch ? "" : " (P)");

// The lines of the panel about what is shown: { id: HTML, or null where there is nothing to tell }.
function aboutTold({ node, view, range, map, padded }) {
  const { side } = stages[state.stage], count = (scope) => view.kept[scope].source.length;
  const told = {
    ofNode: `A ${word("node")} of ${word(`stage ${state.stage}`, state.stage)}: ${side} x ${side} pixels at row ` +
            `${node[0]}, column ${node[1]}, and the features that stand for them.`,
    ofLocal: `${count("local")} local ${word("neighbour", "neighbours")}, of 256 ` +
             `${word("candidate", "candidates")} in the dashed window.`,
    ofGlobal: `${count("global")} global ${word("neighbour", "neighbours")}, of 256 ` +
              `${word("candidate", "candidates")} on a mesh across the picture.`,
    ofPadding: padded ? `In a ring or frame: in the ${word("padding")}.` : null,
    ofZero: `Hollow: ${word("zero node", "zero nodes")}, outside the picture.`,
    ofMoves: movesTold(),
  };
  if (!scopesOf(state.scope).includes("local")) told.ofLocal = null;
  if (!scopesOf(state.scope).includes("global")) told.ofGlobal = null;
  if (!scopesOf(state.scope).some((scope) => view.shown[scope].source.includes(zeroNode()))) told.ofZero = null;
  const alone = state.by === "attention" && !view.kept.global.attention && state.scope !== "local";
  told.ofColor = `Their colour: ${word(state.by)}, spread over what is shown.` +
                 (alone ? " Grey: the layer works on the local graph only." : "");
  told.ofMap = map && `The map: ${word(`map ${state.map}`, map.told)}.`;
  return told;
}
