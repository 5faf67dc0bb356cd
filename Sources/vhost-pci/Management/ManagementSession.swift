import AdminQueue
import HostSystem
import PCI
import Virtio
import VirtioSpec

/// A management device that one command opened and brought up. Ending it resets the device, which
/// destroys the virtual devices that were created (AVQ-D-309).
final class ManagementSession {
    let target: DeviceTarget
    let transport: PCITransport
    let driver: ManagementDriver
    let loop: EventLoop
    let offered: FeatureBits

    /// Drives `function`, which `target` led to; refuses what is no management device.
    init(_ target: DeviceTarget, _ function: any PCIFunction) throws {
        self.target = target
        let transport = try PCITransport(function: function)
        self.transport = transport
        guard transport.deviceType == .management else {
            throw HostRefusal(
                "mgmt/type",
                "\(target) is a \(transport.deviceType) device, not a management device",
                remedy: "give one of type management: `vhost-pci device show TARGET` tells what a"
                    + " device is"
            )
        }
        loop = try EventLoop()
        offered = try transport.deviceFeatures()
        driver = try ManagementDriver(transport: transport, loop: loop)
    }

    /// The virtual devices that are there; `nil` where the device cannot list them.
    func list() throws -> [VirtualDeviceReport]? {
        guard driver.capabilities.contains(.staticDevices) else { return nil }
        return try driver.list().map { id in
            VirtualDeviceReport(id: id, try driver.information(id))
        }
    }

    /// All that is known of one virtual device.
    func show(_ id: UInt64) throws -> VirtualDeviceReport {
        let information = try driver.information(id)
        var report = VirtualDeviceReport(id: id, information)
        let device = try driver.transport(for: id)
        let features = try device.deviceFeatures()
        report.offered = DeviceInspection.features(features, information.type)
        report.status = "\(try device.status())"
        report.queues = try (0..<Int(information.queueCount)).map { queue in
            DeviceReport.Queue(index: queue, size: try device.queueLimit(queue))
        }
        let length = Int(information.configurationSize)
        if length > 0, driver.capabilities.contains(.configuration) {
            let bytes = try device.readConfiguration(0, min(length, 256))
            report.configurationBytes = HexBytes.text(bytes)
            report.configuration = DeviceConfigurationField.fields(of: information.type)
                .filter { field in
                    field.offset + field.length <= bytes.count
                        && (field.features.isEmpty || !field.features.isDisjoint(with: features))
                }
                .map { field in
                    let part = bytes[field.offset..<(field.offset + field.length)]
                    return DeviceReport.Field(name: field.name, value: field.text(Array(part)))
                }
        }
        return report
    }

    /// Waits until somebody asks to end; throws when the device is gone. Hold terminations back before
    /// the first change.
    func wait(for signals: FileDescriptor) throws {
        var isOver = false
        let source = try loop.watch(signals) { isOver = true }
        defer { loop.remove(source) }
        while !isOver {
            try loop.turn(limitMilliseconds: 500)
            // A device that is unplugged, or whose server has ended, tells nobody.
            if !isOver, try transport.status().rawValue == .max { throw VirtioError.deviceGone }
        }
    }

    /// Ends it: the device is reset.
    func close() {
        driver.close()
    }
}

/// Bytes as people write them: `0a1b`, any number of blanks, colons and underscores between them.
enum HexBytes {
    /// The bytes of a text; `nil` when it is none.
    static func parse(_ text: String) -> [UInt8]? {
        let digits = text.filter { !":_ ".contains($0) }.utf8.map { $0 }
        guard digits.count % 2 == 0, !digits.isEmpty else { return nil }
        var bytes: [UInt8] = []
        for start in stride(from: 0, to: digits.count, by: 2) {
            let pair = digits[start..<(start + 2)]
            guard pair.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit }),
                let byte = UInt8(String(decoding: pair, as: UTF8.self), radix: 16)
            else { return nil }
            bytes.append(byte)
        }
        return bytes
    }

    /// Two digits a byte.
    static func text(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { HexText.bare($0, digits: 2) }.joined()
    }
}
