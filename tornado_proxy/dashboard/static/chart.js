// Draws the time chart of the bill with uPlot: stacked bars, one colour for each group.  The table below it has the
// same figures; without this script it is the only one.
"use strict";
(() => {
  const box = document.getElementById("chart");
  const chart = JSON.parse(box.dataset.chart);
  const amounts = chart.series.map(series => series.amounts.map(Number));

  // Each bar reaches from 0 to the sum of its group and those below it, and is drawn before the shorter ones.
  const sums = [];
  amounts.forEach((own, index) => {
    sums.push(own.map((amount, point) => amount + (index ? sums[index - 1][point] : 0)));
  });
  const order = chart.series.map((_, index) => index).reverse();

  // The times of the axis are UTC, as all times of the pages.
  const twoDigits = number => String(number).padStart(2, "0");
  const showTime = seconds => {
    const time = new Date(seconds * 1000);
    const day = `${time.getUTCFullYear()}-${twoDigits(time.getUTCMonth() + 1)}-${twoDigits(time.getUTCDate())}`;
    return chart.interval === "hour" ? `${day} ${twoDigits(time.getUTCHours())}:00` : day;
  };

  const HOUR_S = 3600, DAY_S = 24 * HOUR_S;
  const steps = {
    hour: [1, 3, 6, 12, 24, 48].map(hours => hours * HOUR_S),
    day: [1, 2, 7, 14, 28, 56].map(days => days * DAY_S),
    month: [31, 92, 184, 366].map(days => days * DAY_S),
  }[chart.interval];
  const showMark = seconds => (chart.interval === "hour" && seconds % DAY_S ? showTime(seconds).slice(11) : showTime(seconds).slice(0, 10));

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const color = name => style.getPropertyValue(name).trim();
    const line = {stroke: color("--line"), width: 1};
    const axis = {stroke: color("--faint"), grid: line, ticks: line};
    const digits = marks => Math.min(12, decimals(marks));
    const bars = uPlot.paths.bars({size: [0.8, 60]});
    const options = {
      width: box.clientWidth,
      height: 240,
      tzDate: seconds => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      cursor: {drag: {x: false, y: false}, points: {show: false}},
      scales: {
        x: {range: (plot, first, last) => [first - steps[0] / 2, last + steps[0] / 2]},  // room for half a bar
        y: {range: (plot, low, high) => [0, high > 0 ? high * 1.05 : 1]},
      },
      axes: [
        {...axis, grid: {show: false}, incrs: steps, space: 90, values: (plot, marks) => marks.map(showMark)},
        {...axis, size: 80, values: (plot, marks) => marks.map(mark => mark.toFixed(digits(marks)))},
      ],
      series: [
        {label: "Time, UTC", value: (plot, seconds) => (seconds === null ? "" : showTime(seconds))},
        ...order.map(index => ({
          label: chart.series[index].name,
          fill: color(`--series-${index + 1}`),
          width: 0,
          paths: bars,
          points: {show: false},
          value: (plot, sum, series, point) => (point === null ? "" : chart.series[index].amounts[point]),
        })),
      ],
    };
    box.replaceChildren();
    const plot = new uPlot(options, [chart.times, ...order.map(index => sums[index])], box);
    // The legend names the dearest group first, and the time last.
    box.querySelectorAll(".u-series").forEach((row, index) => { row.style.order = -index; });
    return plot;
  };

  // As many decimals as tell the marks of an axis apart: amounts of one stream are millionths.
  const decimals = marks => {
    const step = marks.length > 1 ? Math.abs(marks[1] - marks[0]) : 1;
    return step >= 1 ? 0 : Math.ceil(-Math.log10(step)) + 1;
  };

  box.hidden = false;
  let plot = draw();
  const redraw = () => { plot.destroy(); plot = draw(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", redraw);
})();
