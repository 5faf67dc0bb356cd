import Foundation
import HostSupport
import HostSystem
import PCI
import Testing

/// What `lspci -vvv` says about capabilities, for comparison.
private struct LspciCapability {
    var offset: Int
    var isExtended: Bool
    var text: String

    /// Capabilities by function.
    static func parse(_ output: String) -> [(function: String, capabilities: [LspciCapability])] {
        var result: [(function: String, capabilities: [LspciCapability])] = []
        for line in output.split(separator: "\n") {
            if line.first?.isHexDigit == true {
                result.append((String(line.prefix { $0 != " " }), []))
            } else if let place = line.range(of: "\tCapabilities: [") {
                let rest = line[place.upperBound...]
                let words = rest.prefix { $0 != "]" }.split(separator: " ")
                guard let number = words.first.flatMap({ Int($0, radix: 16) }),
                    let text = rest.firstIndex(of: "]")
                else { continue }
                result[result.count - 1].capabilities.append(
                    LspciCapability(
                        offset: number,
                        isExtended: words.count > 1,
                        text: String(rest[rest.index(after: text)...].dropFirst())
                    )
                )
            } else if line.hasPrefix("\t\t"),
                let last = result.indices.last, !result[last].capabilities.isEmpty
            {
                let at = result[last].capabilities.count - 1
                result[last].capabilities[at].text += "\n" + line.dropFirst(2)
            }
        }
        return result
    }

    /// The text behind `key` up to a blank or comma.
    func value(_ key: String) -> String? {
        guard let place = text.range(of: key) else { return nil }
        return String(text[place.upperBound...].prefix { !" ,\n".contains($0) })
    }

    func hex(_ key: String) -> Capability.Value? {
        value(key).flatMap { UInt64($0, radix: 16) }.map { .bits($0) }
    }

    func number(_ key: String) -> Capability.Value? {
        value(key).flatMap { UInt64($0) }.map { .number($0) }
    }

    func flag(_ key: String) -> Capability.Value? {
        guard let place = text.range(of: key) else { return nil }
        return .flag(text[place.upperBound...].first == "+")
    }
}

@Suite struct LspciTests {
    private static func lspci(_ arguments: [String]) throws -> String {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/lspci")
        process.arguments = arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        let bytes = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Fields that both show: our name, and how lspci's text yields the value.
    private static func fields(
        _ theirs: LspciCapability,
        _ ours: Capability
    ) -> [(String, Capability.Value?)] {
        switch (ours.isExtended, ours.identifier) {
        case (false, 0x01):
            return [
                ("version", theirs.number("version ")), ("d1", theirs.flag("D1")),
                ("d2", theirs.flag("D2")),
                ("state", theirs.value("Status: ").map { .text($0) }),
                ("no_soft_reset", theirs.flag("NoSoftRst")),
                ("pme_enabled", theirs.flag("PME-Enable")),
            ]
        case (false, 0x05):
            let counts = theirs.value("Count=")?.split(separator: "/").compactMap { UInt64($0) }
            return [
                ("enabled", theirs.flag("Enable")), ("maskable", theirs.flag("Maskable")),
                ("64bit", theirs.flag("64bit")),
                ("vectors_enabled", counts?.first.map { .number($0) }),
                ("vectors", counts?.last.map { .number($0) }),
            ]
        case (false, 0x09) where ours["structure"] != nil:
            guard ours.virtio != nil else { return [] }
            var fields: [(String, Capability.Value?)] = [
                ("bar", theirs.number("BAR=")), ("offset", theirs.hex("offset=")),
                ("size", theirs.hex("size=")),
            ]
            if theirs.text.contains("multiplier=") {
                let value = theirs.value("multiplier=").flatMap { UInt64($0, radix: 16) }
                fields.append(("multiplier", value.map { .number($0) }))
            }
            return fields
        case (false, 0x09):
            return [
                (
                    "length",
                    theirs.value("Len=").flatMap { UInt64($0, radix: 16) }.map { .number($0) }
                )
            ]
        case (false, 0x10):
            return [
                (
                    "version",
                    theirs.value("(v")?.first.flatMap { UInt64(String($0)) }.map { .number($0) }
                ),
                ("function_level_reset", theirs.flag("FLReset")),
                ("maximum_payload_supported", theirs.number("MaxPayload ")),
                ("maximum_read_request", theirs.number("MaxReadReq ")),
            ]
        case (false, 0x11):
            let tables = theirs.text.components(separatedBy: "PBA:")
            let table = LspciCapability(offset: 0, isExtended: false, text: tables[0])
            let pending = LspciCapability(offset: 0, isExtended: false, text: tables.last ?? "")
            return [
                ("enabled", theirs.flag("Enable")), ("masked", theirs.flag("Masked")),
                ("vectors", theirs.number("Count=")),
                ("table_bar", table.number("BAR=")), ("table_offset", table.hex("offset=")),
                ("pending_bar", pending.number("BAR=")),
                ("pending_offset", pending.hex("offset=")),
            ]
        case (true, 0x03):
            return [("serial_number", theirs.value("Serial Number ").map { .text($0) })]
        case (true, 0x0b):
            return [
                ("id", theirs.hex("ID=")),
                ("revision", theirs.number("Rev=")),
                (
                    "length",
                    theirs.value("Len=").flatMap { UInt64($0, radix: 16) }.map { .number($0) }
                ),
            ]
        case (true, 0x0e):
            return [("next_function", theirs.number("Next Function: "))]
        case (true, 0x10):
            return [
                ("enabled", theirs.flag("IOVCtl:\tEnable")),
                ("initial_functions", theirs.number("Initial VFs: ")),
                ("total_functions", theirs.number("Total VFs: ")),
                ("functions", theirs.number("Number of VFs: ")),
                ("first_offset", theirs.number("VF offset: ")),
                ("stride", theirs.number("stride: ")), ("device", theirs.hex("Device ID: ")),
            ]
        default: return []
        }
    }

    private func compare(_ theirs: LspciCapability, _ report: CapabilityReport) throws -> Int {
        let ours = try #require(
            report.capabilities.first {
                $0.offset == theirs.offset && $0.isExtended == theirs.isExtended
            },
            "lspci has [\(theirs.offset)] \(theirs.text)"
        )
        if theirs.text.contains("<unknown>") || theirs.text.contains("#") { return 0 }
        let name = try #require(ours.name)
        #expect(theirs.text.hasPrefix(name), "\(theirs.text) is \(name) here")
        let fields = Self.fields(theirs, ours)
        for (name, value) in fields {
            #expect(ours[name] == value, "\(name) of \(theirs.text)")
        }
        return fields.count
    }

    @Test func `every capability of this machine's functions reads as lspci reads it`() throws {
        let records = try PCIBus.functions()
        let all = LspciCapability.parse(try Self.lspci(["-D", "-vvv"]))
        #expect(all.map(\.function) == records.map(\.address.description))
        for (function, record) in zip(all, records) {
            let report = CapabilityReport(
                try ConfigurationImage(of: record.address, in: .live),
                bars: BARSizes(record.resources)
            )
            // An unprivileged lspci says "<access denied>" and lists none.
            for capability in function.capabilities { _ = try compare(capability, report) }
            let isDenied = report.problems.contains { $0.contains("run as root") }
            #expect(isDenied || function.capabilities.count == report.capabilities.count)
        }
    }

    /// A function with every capability that both know, by hand.
    private static func rich() -> ConfigurationBytes {
        var space = ConfigurationBytes.net()
        space.capability(0x01, at: 0xa4, [0x03, 0x06, 0x08, 0x01, 0, 0])
        space.capability(0x05, at: 0xac, [0xa5, 0x01] + [UInt8](repeating: 0, count: 20))
        space.capability(
            0x10,
            at: 0xc4,
            [0x02, 0x00, 0x01, 0x80, 0x00, 0x10, 0x10, 0x28, 0x00, 0x00]
                + [0x43, 0x4c, 0x00, 0x00, 0x00, 0x00, 0x42, 0x00]
                + [UInt8](repeating: 0, count: 40)
        )
        space.extended(0x01, version: 2, at: 0x100, [UInt8](repeating: 0x10, count: 40))
        space.extended(0x03, at: 0x148, [1, 2, 3, 0xab, 0xcd, 0xff, 0, 9])
        space.extended(0x0d, at: 0x158, [0x5d, 0, 0x1d, 0])
        space.extended(0x0e, at: 0x160, [0, 3, 0, 0])
        var functions = [UInt8](repeating: 0, count: 60)
        functions[4] = 1
        functions.replaceSubrange(8..<14, with: [8, 0, 8, 0, 4, 0])
        functions.replaceSubrange(16..<20, with: [0x80, 0, 2, 0])
        functions.replaceSubrange(22..<24, with: [0x41, 0x10])
        space.extended(0x10, at: 0x170, functions)
        space.extended(
            0x0b,
            at: 0x1c0,
            [0x34, 0x12, 0x42, 0x01] + [UInt8](repeating: 0, count: 12)
        )
        space.extended(0x18, at: 0x1f0, [0, 0, 0, 0])
        space.extended(0x0f, at: 0x200, [0x05, 0, 0, 0x80])
        space.extended(0x1e, at: 0x220, [UInt8](repeating: 0, count: 12))
        return space
    }

    @Test func `every capability of a hand-made function reads as lspci reads it`() throws {
        let bytes = Self.rich().bytes
        var dump = "0000:03:00.0 made by hand\n"
        func hex(_ value: Int, _ digits: Int) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        for at in stride(from: 0, to: bytes.count, by: 16) {
            let row = bytes[at..<(at + 16)].map { hex(Int($0), 2) }.joined(separator: " ")
            dump += "\(hex(at, at < 256 ? 2 : 3)): \(row)\n"
        }
        let host = try FixtureTree()
        try host.file("/dump", dump)
        let output = try Self.lspci(["-D", "-vvv", "-F", host.root + "/dump"])
        let theirs = try #require(LspciCapability.parse(output).first?.capabilities)
        let report = CapabilityReport(
            ConfigurationImage(bytes),
            bars: BARSizes(PCIResourceTexts.oneBAR)
        )
        #expect(report.problems.isEmpty)
        #expect(theirs.count == report.capabilities.count && theirs.count >= 16)
        let fields = try theirs.reduce(0) { try $0 + compare($1, report) }
        #expect(fields >= 43)
    }
}
