public import HostSystem

/// Plays the kernel's part of driver binding on a fixture tree: it takes writes to `driver_override`,
/// `drivers_probe`, `bind` and `unbind`, and moves the `driver` links as a kernel does.
public final class FakeKernel: AttributeWriter {
    private let host: FixtureTree

    /// Drivers that a function gets when no override is set.
    public var defaultDrivers: [String: String] = [:]
    /// Drivers whose probe fails; the write to `drivers_probe` succeeds all the same.
    public var refusing: Set<String> = []
    /// Files that answer every write with an error.
    public var failures: [String: Errno] = [:]
    /// How many writes are carried out before the process "dies": later ones do nothing and throw.
    public var writesBeforeCrash = Int.max
    /// All that was written, in order.
    public private(set) var log: [String] = []
    /// Called before each write with what is about to be written.
    public var beforeWrite: (String) -> Void = { _ in }

    /// Rules over `host`.
    public init(_ host: FixtureTree) {
        self.host = host
    }

    /// Takes a write.
    public func write(_ text: String, to path: String) throws(SystemError) {
        guard log.count < writesBeforeCrash else { throw SystemError("crashed", Errno(4)) }
        beforeWrite("\(text) > \(path)")
        log.append("\(text) > \(path)")
        if let errno = failures[path] { throw SystemError("write to \(path)", errno) }
        let parts = path.split(separator: "/").map(String.init)
        switch parts.last {
        case "driver_override":
            let value = text == "\n" ? "(null)" : text
            do { try host.file(path, value + "\n") } catch { throw lost(path) }
        case "drivers_probe": try probe(text)
        case "unbind":
            let link = FixtureTree.device(text) + "/driver"
            guard host.tree.exists(link) else { throw SystemError("unbind", Errno(19)) }
            host.remove(link)
        case "bind" where parts.count >= 2: try bind(text, to: parts[parts.count - 2])
        case "reset": break
        default: throw SystemError("write to \(path)", .noSuchFile)
        }
    }

    private func probe(_ address: String) throws(SystemError) {
        guard host.tree.exists(FixtureTree.device(address)) else {
            throw SystemError("probe", Errno(19))
        }
        guard host.tree.linkName(FixtureTree.device(address) + "/driver") == nil else { return }
        let override = host.tree.textIfAny(FixtureTree.device(address) + "/driver_override")
        let wanted = override == nil || override == "(null)" ? defaultDrivers[address] : override
        if let wanted { try? bind(address, to: wanted) }
    }

    private func bind(_ address: String, to driver: String) throws(SystemError) {
        guard host.tree.exists("/sys/bus/pci/drivers/\(driver)"), !refusing.contains(driver) else {
            throw SystemError("bind", Errno(22))
        }
        do { try host.bind(address, to: driver) } catch { throw lost(address) }
    }

    private func lost(_ path: String) -> SystemError {
        SystemError("change the fixture \(path)", .noSuchFile)
    }
}
