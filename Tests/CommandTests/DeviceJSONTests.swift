import Foundation
import HostSupport
import HostSystem
import PCI
import Testing

@testable import vhost_pci

/// Every key that is printed stands in docs/device-json.md.
@Suite struct DeviceJSONTests {
    private static let page: String = {
        let folder = URL(filePath: #filePath).deletingLastPathComponent()
        let page = folder.appending(path: "../../docs/device-json.md").standardized
        return (try? String(contentsOf: page, encoding: .utf8)) ?? ""
    }()

    /// The keys of an object and of all in it, without those that name what is described.
    private static func keys(_ value: Any) -> Set<String> {
        if let list = value as? [Any] {
            return list.reduce(into: []) { $0.formUnion(keys($1)) }
        }
        guard let object = value as? [String: Any] else { return [] }
        return object.reduce(into: []) { keys, entry in
            keys.insert(entry.key)
            if entry.key != "fields" { keys.formUnion(Self.keys(entry.value)) }
        }
    }

    private func expectDocumented(_ object: some Encodable, least: Int) throws {
        let data = try JSONEncoder().encode(object)
        let keys = Self.keys(try JSONSerialization.jsonObject(with: data))
        #expect(keys.count >= least)
        for key in keys {
            #expect(Self.page.contains("`\(key)`") || Self.page.contains(".\(key)`"), "\(key)")
        }
    }

    private func full() throws -> FixtureTree {
        let doctor = try DoctorHost(driver: "virtio-pci")
        let device = DoctorHost.device
        for (name, text) in [
            ("current_link_speed", "8.0 GT/s PCIe"), ("max_link_speed", "16.0 GT/s PCIe"),
            ("current_link_width", "4"), ("max_link_width", "8"), ("sriov_totalvfs", "4"),
            ("driver_override", "vfio-pci"), ("msi_irqs/24", "msix"), ("virtio0/status", "0x0f"),
            ("virtio0/features", "1"),
        ] { try doctor.host.file("\(device)/\(name)", text + "\n") }
        try doctor.host.link("\(device)/physfn", to: "../0000:02:00.0")
        return doctor.host
    }

    @Test func `the list`() throws {
        let host = try full()
        try expectDocumented(try DeviceList(in: host.tree, onlyVirtio: false), least: 13)
        let empty = try FixtureTree()
        try expectDocumented(try DeviceList(in: empty.tree, onlyVirtio: false), least: 3)
    }

    @Test func `the report of a function and of the emulated one`() throws {
        let host = try full()
        for (target, least) in [(DoctorHost.address, 50), ("emulated", 34)] {
            let report = try DeviceInspection(
                target: try DeviceTarget.parse(target),
                tree: host.tree,
                unsafeNoIOMMU: false
            ).report()
            try expectDocumented(report, least: least)
        }
    }

    @Test func `the dump`() throws {
        let host = try full()
        for (target, least) in [(DoctorHost.address, 5), ("emulated", 9)] {
            let target = try DeviceTarget.parse(target)
            let dump = try DeviceDump(target, in: host.tree, unsafeNoIOMMU: false)
            try expectDocumented(dump, least: least)
        }
    }

    @Test func `a change, an error and the doctor`() throws {
        let host = try full()
        var change = DeviceChange(schema: "vhost-pci.device-bind/1", target: "x")
        change.driverBefore = "a"
        change.driverAfter = "b"
        change.writes = [DeviceChange.Write(text: "t", path: "p")]
        try expectDocumented(change, least: 10)
        let refusal = HostRefusal("bind/in-use", "detail", remedy: "remedy")
        try expectDocumented(CommandFailure(refusal), least: 6)
        let target = try #require(PCIAddress(DoctorHost.address))
        try expectDocumented(try Doctor(host.tree, target: target).report, least: 13)
    }
}
