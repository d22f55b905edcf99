//! The plot for the README: CPU time per request as bars, an SVG without any dependency. In: the
//! cells of the throughput table. Out: the SVG's text.

use std::fmt::Write as _;

use super::measure::Cell;

/// Those shown, in this order, with their colours.
const PEERS: [(&str, &str, &str); 4] = [
    ("mirror", "mirror", "#0b7a75"),
    ("nginx", "nginx", "#8fb339"),
    ("envoy", "Envoy", "#b14aed"),
    ("traefik", "Traefik", "#e08e45"),
];

const ROWS: [(&str, &str); 6] = [
    ("get", "GET"),
    ("get mirrored", "GET, mirrored"),
    ("post-16k", "POST 16 KiB"),
    ("post-16k mirrored", "POST 16 KiB, mirrored"),
    ("h2", "HTTP/2 GET"),
    ("h2 mirrored", "HTTP/2 GET, mirrored"),
];

const WIDTH: f64 = 760.0;
const LEFT: f64 = 170.0;
const BAR: f64 = 13.0;
const TOP: f64 = 58.0;

/// A bar: a peer's place in [`PEERS`], and microseconds.
type Bar = (usize, f64);

/// The plot; None when nothing of it was measured. A void row of mirror's is left out; copies that
/// the others lose are theirs.
pub(super) fn svg(cells: &[Cell]) -> Option<String> {
    let groups: Vec<_> = ROWS.iter().map(|(row, label)| (*label, bars(cells, row))).collect();
    let groups: Vec<_> = groups.into_iter().filter(|(_, bars)| !bars.is_empty()).collect();
    let most = groups.iter().flat_map(|(_, bars)| bars).map(|(_, us)| *us).reduce(f64::max)?;
    let scale = (WIDTH - LEFT - 60.0) / most;
    let mut body = String::new();
    let mut y = TOP;
    for (label, bars) in &groups {
        let middle = y + bars.len() as f64 * BAR / 2.0 + 4.0;
        let _ = writeln!(
            body,
            "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\">{label}</text>",
            LEFT - 10.0
        );
        for (peer, us) in bars {
            body += &bar(*peer, *us, y, scale);
            y += BAR;
        }
        y += 12.0;
    }
    let shown = |peer: &usize| groups.iter().any(|(_, bars)| bars.iter().any(|b| b.0 == *peer));
    let shown: Vec<_> = (0..PEERS.len()).filter(shown).collect();
    Some(frame(&body, &shown, y))
}

fn bars(cells: &[Cell], row: &str) -> Vec<Bar> {
    let us = |name: &str| {
        let cell = cells.iter().find(|cell| cell.row == row && cell.peer == name)?;
        let shown = name != "mirror" || cell.void().is_none();
        shown.then(|| cell.median(|sample| sample.cpu_us))?
    };
    let all = PEERS.iter().enumerate();
    all.filter_map(|(at, (name, ..))| Some((at, us(name)?))).collect()
}

fn bar(peer: usize, us: f64, y: f64, scale: f64) -> String {
    let (colour, width) = (PEERS[peer].2, us * scale);
    format!(
        "<rect x=\"{LEFT:.0}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
         fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"figure\">{us:.1}</text>\n",
        BAR - 2.0,
        LEFT + width + 5.0,
        y + BAR - 3.5
    )
}

fn frame(body: &str, peers: &[usize], height: f64) -> String {
    let mut legend = String::new();
    for (at, peer) in peers.iter().enumerate() {
        let (_, name, colour) = PEERS[*peer];
        let x = LEFT + at as f64 * 100.0;
        let _ = write!(
            legend,
            "<rect x=\"{x:.0}\" y=\"34\" width=\"11\" height=\"11\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"44\">{name}</text>",
            x + 16.0
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>.figure {{ font-size: 10px; fill: #555 }}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT:.0}\" y=\"22\" font-weight=\"bold\">CPU time per request, microseconds \
         (less is better)</text>\n{legend}\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::Sample;

    fn cell(row: &str, peer: &str, us: f64) -> Cell {
        let sample = Sample {
            requests: 1,
            errors: 0,
            rate: 1.0,
            cpu_us: Some(us),
            p50_ms: None,
            p99_ms: None,
            copies: None,
            losses: String::new(),
        };
        let (row, peer) = (row.to_owned(), peer.to_owned());
        Cell { row, peer, samples: vec![sample], failures: Vec::new() }
    }

    #[test]
    fn each_figure_has_a_bar_as_long_as_it() {
        let svg = svg(&[cell("get", "mirror", 10.0), cell("get", "envoy", 40.0)]).unwrap();
        let bars = svg.matches("class=\"figure\"").count();
        assert_eq!(bars, 2, "{svg}");
        let full = WIDTH - LEFT - 60.0;
        for width in [full, full / 4.0] {
            assert!(svg.contains(&format!("width=\"{width:.1}\"")), "{svg}");
        }
        assert!(super::svg(&[cell("grpc", "mirror", 1.0)]).is_none());
    }
}
