import ArgumentParser
import Glibc
import HostSystem
import PCI
import VirtioSpec

/// `vhost-pci device dump`.
struct DeviceDumpCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dump",
        abstract: "Print configuration space and virtio registers, in hex and decoded.",
        discussion: """
            Configuration space is printed as `lspci -xxxx` prints it, so that `lspci -F` can read \
            it. Registers are those that the virtio capabilities point to; they are read from a \
            device that user space may open (see `device show`). Reading the interrupt status \
            clears it, so that one is left alone.
            """
    )

    @Argument(help: "0000:03:00.0, `vfio-user:PATH` or `emulated`.", transform: DeviceTarget.parse)
    var target: DeviceTarget

    @OptionGroup var host: HostOptions
    @OptionGroup var opening: OpenOptions

    func run() throws {
        try CommandFailure.reporting(json: host.json) {
            let dump = try DeviceDump(
                target,
                in: host.tree,
                unsafeNoIOMMU: opening.unsafeNoIOMMU
            )
            if host.json {
                try CommandFailure.print(dump)
            } else {
                try CommandFailure.print(lines: dump.lines)
            }
            if let reason = dump.reason { StepReporter.write(reason + "\n", to: STDERR_FILENO) }
        }
    }
}

/// The bytes of a device, in the form `vhost-pci.device-dump/1` (docs/device-json.md).
struct DeviceDump: Codable, Equatable {
    /// A range of a BAR that a virtio capability names.
    struct Range: Codable, Equatable {
        var structure: String
        var bar: Int
        var offset: UInt64
        /// The bytes in hex, cut at `longestRange`.
        var bytes: String
        var isCut: Bool

        enum CodingKeys: String, CodingKey {
            case structure, bar, offset, bytes
            case isCut = "cut"
        }
    }

    /// Most bytes of one range: a notify structure repeats itself.
    static let longestRange: UInt64 = 256

    var schema = "vhost-pci.device-dump/1"
    var target: String
    /// Configuration space in hex.
    var configuration: String
    var ranges: [Range]
    /// Why there are no ranges.
    var reason: String?

    init(_ target: DeviceTarget, in tree: HostTree, unsafeNoIOMMU: Bool) throws {
        self.target = "\(target)"
        ranges = []
        var opened: (any PCIFunction)?
        do {
            opened = try target.open(unsafeNoIOMMU: unsafeNoIOMMU, in: tree)
        } catch PCIError.refused(let refusal) where refusal.id == "pci/address" {
            throw refusal
        } catch {
            reason = "registers are not shown: \(CommandFailure(error).line)"
        }
        let image: ConfigurationImage
        if let opened {
            image = try ConfigurationImage(opened)
        } else {
            image = try ConfigurationImage(of: try target.address(for: "a dump"), in: tree)
        }
        configuration = Self.hex(image.bytes)
        guard let opened else { return }
        let report = CapabilityReport(image, bars: try BARSizes(opened))
        let command = try opened.readConfiguration(ConfigurationHeader.command, .word)
        try opened.writeConfiguration(
            ConfigurationHeader.command,
            .word,
            command | UInt32(CommandRegister.memorySpace.rawValue)
        )
        for capability in report.capabilities where capability.problems.isEmpty {
            guard let structure = capability.virtio, Self.isReadable(structure.type),
                let name = Capability.virtioName(structure.type)
            else { continue }
            ranges.append(try Self.range(structure, name, opened))
        }
        try opened.writeConfiguration(ConfigurationHeader.command, .word, command)
    }

    // Reading the status clears it; the window in configuration space is no range of its own.
    private static func isReadable(_ type: VirtioCapabilityType) -> Bool {
        type != .interruptStatus && type != .configurationAccess
    }

    private static func range(
        _ structure: VirtioCapability,
        _ name: String,
        _ function: any PCIFunction
    ) throws -> Range {
        let length = min(structure.length, longestRange)
        var bytes: [UInt8] = []
        while UInt64(bytes.count) < length {
            let at = UInt64(bytes.count)
            // Registers of the common structure are read with their own widths, others by bytes.
            var width = AccessWidth.byte
            if structure.type == .common, let field = CommonConfiguration(byte: Int(at)),
                field.offset == Int(at), UInt64(field.width) <= length - at
            {
                width = AccessWidth(rawValue: field.width) ?? .byte
            }
            let value = try function.readRegister(
                Int(structure.bar),
                structure.offset + at,
                width
            )
            for index in 0..<width.rawValue {
                bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(8 * index)))
            }
        }
        return Range(
            structure: name,
            bar: Int(structure.bar),
            offset: structure.offset,
            bytes: hex(bytes),
            isCut: structure.length > length
        )
    }

    private static func hex(_ bytes: [UInt8]) -> String {
        bytes.map { HexText.bare($0, digits: 2) }.joined()
    }

    /// The dump for people.
    var lines: [String] {
        var lines = ["\(target) configuration space"]
        var rows = Self.rows(configuration)
        let all = rows.count
        // Most of the extended space is empty.
        while rows.count > 16, rows.last?.hasSuffix(Self.emptyRow) == true { rows.removeLast() }
        lines += rows
        if rows.count < all { lines.append("zeros up to \(HexText.bare(16 * all - 1))") }
        for range in ranges {
            let cut = range.isCut ? ", cut" : ""
            lines.append("")
            lines.append(
                "\(range.structure): BAR \(range.bar) from \(HexText.of(range.offset))\(cut)"
            )
            lines += Self.rows(range.bytes)
            if range.structure == Capability.virtioName(.common) {
                lines += Self.registers(range.bytes)
            }
        }
        return lines
    }

    private static let emptyRow = ": " + [String](repeating: "00", count: 16).joined(separator: " ")

    private static func rows(_ hex: String) -> [String] {
        let digits = Array(hex.utf8)
        let bytes = stride(from: 0, to: digits.count, by: 2).map { at in
            String(decoding: digits[at..<min(at + 2, digits.count)], as: UTF8.self)
        }
        return stride(from: 0, to: bytes.count, by: 16).map { at in
            let row = bytes[at..<min(at + 16, bytes.count)]
            return HexText.bare(at, digits: 2) + ": " + row.joined(separator: " ")
        }
    }

    private static func registers(_ hex: String) -> [String] {
        let digits = Array(hex.utf8)
        return CommonConfiguration.allCases.compactMap { field in
            let end = 2 * (field.offset + field.width)
            guard end <= digits.count else { return nil }
            let bytes = stride(from: end - 2, through: 2 * field.offset, by: -2).map { at in
                String(decoding: digits[at..<(at + 2)], as: UTF8.self)
            }
            return "    \(HexText.bare(field.offset, digits: 2)) \(field) 0x\(bytes.joined())"
        }
    }
}
