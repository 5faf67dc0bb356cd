import Glibc
import HostSystem
import PCI
import Testing

@testable import VFIO

/// A tree that stands for a host: one function in an IOMMU group that VFIO has.
final class FixtureTree {
    static let address = PCIAddress(domain: 0, bus: 3, device: 0, function: 0)
    static let folder = "sys/bus/pci/devices/0000:03:00.0"
    let root: String

    init(group: Int? = 12) throws {
        var template = Array("/tmp/vfio-tree-XXXXXX".utf8CString)
        let made = unsafe template.withUnsafeMutableBufferPointer { buffer in
            unsafe buffer.baseAddress.flatMap { unsafe mkdtemp($0) }.map {
                unsafe String(cString: $0)
            }
        }
        root = try #require(made)
        folder(Self.folder)
        folder("dev/vfio")
        file("dev/vfio/vfio")
        link("\(Self.folder)/driver", "../../../../bus/pci/drivers/vfio-pci")
        if let group {
            file("dev/vfio/\(group)")
            link("\(Self.folder)/iommu_group", "../../../../kernel/iommu_groups/\(group)")
            folder("sys/kernel/iommu_groups/\(group)/devices/0000:03:00.0")
        }
    }

    deinit { remove(root) }

    func folder(_ name: String) {
        var path = root
        for part in name.split(separator: "/") {
            path += "/" + part
            _ = unsafe mkdir(path, 0o755)
        }
    }

    func file(_ name: String, _ text: String = "") {
        bytes(name, Array(text.utf8))
    }

    func bytes(_ name: String, _ bytes: [UInt8]) {
        let parts = name.split(separator: "/")
        folder(parts.dropLast().joined(separator: "/"))
        let descriptor = unsafe Glibc.open(root + "/" + name, O_CREAT | O_RDWR | O_TRUNC, 0o640)
        guard descriptor >= 0 else { return }
        _ = try? FileDescriptor(owning: descriptor).write(at: 0, bytes)
    }

    func link(_ name: String, _ target: String) {
        let parts = name.split(separator: "/")
        folder(parts.dropLast().joined(separator: "/"))
        _ = unsafe unlink(root + "/" + name)
        _ = unsafe symlink(target, root + "/" + name)
    }

    func remove(name: String) { remove(root + "/" + name) }

    private func remove(_ path: String) {
        let tree = HostTree(root: path)
        if (try? tree.link("")) == nil {
            for entry in tree.entriesIfAny("") { remove(path + "/" + entry) }
        }
        if unsafe Glibc.rmdir(path) != 0 { _ = unsafe unlink(path) }
    }
}

/// What a call throws, as text.
func failure(_ body: () throws -> Void) -> String {
    do {
        try body()
        return "nothing was thrown"
    } catch {
        return "\(error)"
    }
}
