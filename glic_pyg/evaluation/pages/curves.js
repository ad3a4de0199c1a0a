// Rate-distortion curves, by Chart.js: a chart for each metric, and one table that is legend and reading of both.
(() => {
  const {metrics, codecs, most} = JSON.parse(document.getElementById("curves").textContent);
  if (!metrics.length) return;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  // Okabe and Ito's colours, apart for colour-blind eyes; the first codec has the colour of the text.
  const COLORS = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#B07800", "#56B4E9", "#8C6D31", "#882255", "#777777"];
  const DARK = ["#FF8A3D", "#4FA8E8", "#2CC79A", "#E59AC6", "#F2D03B", "#A8DDFA", "#C7A566", "#D77BA0", "#AAAAAA"];
  const SHAPES = ["circle", "rect", "triangle", "rectRot", "crossRot", "star", "cross"];
  const DASHES = [[], [7, 3], [2, 3], [8, 3, 2, 3]];
  const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const color = i => i ? (dark.matches ? DARK : COLORS)[(i - 1) % COLORS.length] : style("--text");
  const hidden = codecs.map(() => false);
  let rate = null;  // under the pointer

  // The score at a rate, on straight lines over the logarithm of the rate.
  function scoreAt(points, rate) {
    for (let i = 1; i < points.length; i++) {
      const [[low, a], [high, b]] = [points[i - 1], points[i]];
      if (low <= rate && rate <= high) return a + (b - a) * (Math.log(rate / low) / Math.log(high / low) || 0);
    }
    return null;
  }
  const pointer = {
    id: "pointer",
    afterDatasetsDraw(chart) {
      if (rate === null) return;
      const {ctx, chartArea: {top, bottom}, scales: {x}} = chart;
      ctx.save();
      ctx.strokeStyle = style("--faint");
      ctx.setLineDash([4, 4]);
      ctx.beginPath();
      ctx.moveTo(x.getPixelForValue(rate), top);
      ctx.lineTo(x.getPixelForValue(rate), bottom);
      ctx.stroke();
      ctx.restore();
    },
    afterEvent(chart, {event}) {
      if (event.type === "mouseout") read(null);
      else if (event.x !== null) read(chart.scales.x.getValueForPixel(event.x));
    },
  };
  const charts = metrics.map((metric, m) => new Chart(document.getElementById(`chart-${m}`), {
    type: "scatter",
    data: {datasets: codecs.map((codec, i) => ({
      label: codec.name,
      data: codec.points[m].map(([x, y, quality]) => ({x, y, quality})),
      showLine: true,
      borderWidth: i ? 1.8 : 3,
      borderDash: codec.unlike ? [1, 5] : DASHES[i % DASHES.length],
      pointStyle: SHAPES[i % SHAPES.length],
      pointRadius: i ? 4 : 5,
      pointHoverRadius: 8,
      pointHitRadius: 12,
    }))},
    options: {
      animation: false,
      maintainAspectRatio: false,
      interaction: {mode: "nearest", intersect: true},
      scales: {
        x: {min: 0, max: most, title: {display: true, text: "bits per pixel"}},
        y: {title: {display: true, text: metric.label}},
      },
      plugins: {
        legend: {display: false},
        tooltip: {callbacks: {label: ({dataset, raw}) => [
          dataset.label + (raw.quality === null ? "" : `, quality ${raw.quality}`),
          `${raw.x.toFixed(3)} bpp, ${raw.y.toFixed(2)} dB`,
        ]}},
      },
    },
    plugins: [pointer],
  }));

  // The legend's line looks like the curve.
  function drawSwatch(canvas, set) {
    const ctx = canvas.getContext("2d");
    ctx.reset();
    ctx.scale(2, 2);
    ctx.strokeStyle = ctx.fillStyle = set.borderColor;
    ctx.lineWidth = set.borderWidth;
    ctx.setLineDash(set.borderDash);
    ctx.beginPath();
    ctx.moveTo(0, 8);
    ctx.lineTo(44, 8);
    ctx.stroke();
    ctx.setLineDash([]);
    Chart.helpers.drawPoint(ctx, {pointStyle: set.pointStyle, radius: set.pointRadius, borderWidth: 1}, 22, 8);
  }
  function paint() {
    for (const chart of charts) {
      const seen = chart.data.datasets.flatMap((set, i) => hidden[i] ? [] : set.data.filter(({x}) => x <= most).map(({y}) => y));
      if (seen.length) {
        const margin = 0.04 * (Math.max(...seen) - Math.min(...seen)) + 0.1;
        chart.options.scales.y.min = Math.floor(Math.min(...seen) - margin);
        chart.options.scales.y.max = Math.ceil(Math.max(...seen) + margin);
      }
      chart.data.datasets.forEach((set, i) => {
        set.borderColor = set.pointBorderColor = set.backgroundColor = color(i);
        chart.setDatasetVisibility(i, !hidden[i]);
      });
      for (const axis of Object.values(chart.options.scales)) {
        axis.ticks = {...axis.ticks, color: style("--faint"), includeBounds: false};
        axis.grid = {...axis.grid, color: style("--line")};
        axis.title.color = style("--text");
      }
      chart.update();
    }
    document.querySelectorAll("#legend tbody tr").forEach((row, i) => {
      row.classList.toggle("off", hidden[i]);
      row.querySelector("button").setAttribute("aria-pressed", !hidden[i]);
      drawSwatch(row.querySelector(".swatch"), charts[0].data.datasets[i]);
    });
  }
  function read(at) {
    rate = at === null ? null : Math.min(Math.max(at, 0), most);
    document.getElementById("rate").textContent =
      rate === null ? "" : `at ${rate.toFixed(2)} bpp`;
    document.querySelectorAll("#legend tbody tr").forEach((row, i) => metrics.forEach((metric, m) => {
      const score = rate === null ? null : scoreAt(codecs[i].points[m], rate);
      row.cells[m + 1].textContent = score === null ? "" : score.toFixed(2);
    }));
    for (const chart of charts) chart.draw();
  }
  document.querySelectorAll("#legend tbody tr").forEach((row, i) => {
    row.querySelector("button").onclick = () => { hidden[i] = !hidden[i]; paint(); };
  });
  dark.addEventListener("change", paint);
  paint();
  read(null);
})();
