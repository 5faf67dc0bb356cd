/// Rows in columns that are as wide as their widest entry.
struct TextTable {
    private var rows: [[String]]

    /// Starts with the headings.
    init(_ headings: [String]) {
        rows = [headings]
    }

    /// Adds a row; an empty entry shows as a dash.
    mutating func add(_ row: [String]) {
        rows.append(row.map { $0.isEmpty ? "-" : $0 })
    }

    /// The lines, without blanks at their ends.
    var lines: [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in
            rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
        }
        return rows.map { row in
            var line = ""
            for (entry, width) in zip(row, widths) {
                if !line.isEmpty { line += "  " }
                line += entry + String(repeating: " ", count: width - entry.count)
            }
            while line.last == " " { line.removeLast() }
            return line
        }
    }
}

/// Numbers for people.
enum HexText {
    /// With `0x` in front and at least `digits` digits.
    static func of(_ value: some BinaryInteger, digits: Int = 1) -> String {
        "0x" + bare(value, digits: digits)
    }

    /// Without anything in front.
    static func bare(_ value: some BinaryInteger, digits: Int = 1) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
}
